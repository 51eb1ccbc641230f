// The functions of version 2 of Mozilla's telemetry.js, for pages that were written for it: load this script from
// the lake's server, and Telemetry.BASE_URL is that server. Percentiles are inside of their own bucket and means are
// of the sums, which the original computed from the width of the last bucket and from the middles of buckets.

/** @typedef {{date: string, label: string, histogram: number[], count: number, sum: number}} Entry */
/** @typedef {{buckets: (number | string)[], kind: string, description: string, data: Entry[]}} Answer */
/** @typedef {Record<string, Record<string, string[]>>} Releases dates by channel and version */

const CACHE_TIMEOUT_MS = 4 * 60 * 60 * 1000;
const MAX_URL_LENGTH = 4094;
const SANITIZED_MIN_SUBMISSIONS = 100;
const SANITIZED_MAX_DAYS = 100;
const DAY_MS = 86_400_000;

/** @param {unknown} condition @param {string} message */
function check(condition, message) {
  if (!condition) throw new Error(message);
}

/** @param {string} text eight digits */
const dateOf = (text) => new Date(`${text.slice(0, 4)}-${text.slice(4, 6)}-${text.slice(6, 8)}`);

class Histogram {
  /**
   * @param {(number | string)[]} buckets
   * @param {number[]} values
   * @param {string} kind
   * @param {number} submissions
   * @param {number} sum
   * @param {string} description
   * @param {string} measure
   */
  constructor(buckets, values, kind, submissions, sum, description, measure) {
    this.buckets = buckets;
    this.values = values;
    this.kind = kind;
    this.submissions = submissions;
    this.sum = sum;
    this.description = description;
    this.measure = measure;
    this.count = values.reduce((all, value) => all + value, 0);
  }

  /** Where a chart may end the last bucket, which has no upper limit. */
  lastBucketUpper() {
    const [before, last] = this.buckets.slice(-2).map(Number);
    if (this.buckets.length === 1) return before + 1;
    return this.kind === "exponential" || this.kind === "count" ? (last * last) / before : 2 * last - before;
  }

  mean() {
    return this.sum / this.count;
  }

  /** @param {number} percent */
  percentile(percent) {
    check(percent >= 0 && percent <= 100, "`percentile` must be between 0 and 100 inclusive");
    const target = (this.count * percent) / 100;
    let before = 0;
    for (const [place, value] of this.values.entries()) {
      if (value > 0 && before + value >= target) {
        const start = Number(this.buckets[place]);
        const end = place + 1 < this.buckets.length ? Number(this.buckets[place + 1]) : start;
        return start + (end - start) * Math.max(0, (target - before) / value);
      }
      before += value;
    }
    return NaN;
  }

  /**
   * @template T
   * @param {(this: Histogram, count: number, start: number | string, end: number | string, place: number) => T} callback
   * @returns {T[]}
   */
  map(callback) {
    const ends = [...this.buckets.slice(1), this.lastBucketUpper()];
    return this.values.map((count, place) => callback.call(this, count, this.buckets[place], ends[place], place));
  }
}

class Evolution {
  /**
   * @param {(number | string)[]} buckets
   * @param {Entry[]} data
   * @param {string} kind
   * @param {string} description
   * @param {string} measure
   */
  constructor(buckets, data, kind, description, measure) {
    this.buckets = buckets;
    this.data = data.toSorted((one, other) => Number(one.date) - Number(other.date));
    this.kind = kind;
    this.description = description;
    this.measure = measure;
  }

  /** @param {Entry[]} data */
  #with(data) {
    return data.length ? new Evolution(this.buckets, data, this.kind, this.description, this.measure) : null;
  }

  dates() {
    return this.data.map(({date}) => dateOf(date));
  }

  /** @param {Evolution} other */
  combine(other) {
    check(this.kind === other.kind && this.buckets.length === other.buckets.length, "evolutions must have the same buckets");
    /** @type {Map<string, Entry>} */
    const sums = new Map();
    for (const entry of [...this.data, ...other.data]) {
      const sum = sums.get(entry.date);
      sums.set(entry.date, sum
        ? {...sum, count: sum.count + entry.count, sum: sum.sum + entry.sum, histogram: sum.histogram.map((value, place) => value + entry.histogram[place])}
        : entry);
    }
    return new Evolution(this.buckets, [...sums.values()], this.kind, this.description, this.measure);
  }

  sanitized() {
    const least = Math.max(Math.max(...this.data.map(({count}) => count)) / 100, SANITIZED_MIN_SUBMISSIONS);
    const last = Date.now() + SANITIZED_MAX_DAYS * DAY_MS;
    return this.#with(this.data.filter(({count, date}) => count >= least && Number(dateOf(date)) <= last));
  }

  /** @param {Date} first @param {Date} last */
  dateRange(first, last) {
    return this.#with(this.data.filter(({date}) => first <= dateOf(date) && dateOf(date) <= last));
  }

  histogram() {
    const total = this.data.reduce(
      (all, entry) => ({count: all.count + entry.count, sum: all.sum + entry.sum, values: all.values.map((value, place) => value + entry.histogram[place])}),
      {count: 0, sum: 0, values: this.buckets.map(() => 0)},
    );
    return new Histogram(this.buckets, total.values, this.kind, total.count, total.sum, this.description, this.measure);
  }

  /**
   * @template T
   * @param {(this: Evolution, histogram: Histogram, place: number, date: Date) => T} callback
   * @returns {T[]}
   */
  map(callback) {
    return this.data.map((entry, place) =>
      callback.call(this, new Histogram(this.buckets, entry.histogram, this.kind, entry.count, entry.sum, this.description, this.measure), place, dateOf(entry.date)));
  }

  means() {
    return this.map((histogram) => histogram.mean());
  }

  /** @param {number} percent */
  percentiles(percent) {
    return this.map((histogram) => histogram.percentile(percent));
  }

  submissions() {
    return this.map(({submissions}) => submissions);
  }

  sampleCounts() {
    return this.map(({count}) => count);
  }
}

/** @type {Map<string, {at: number, answer: Promise<{document: any, status: number}>}>} */
const cache = new Map();

/**
 * Answers and 404 are kept for four hours, other failures are not.
 * @param {string} url
 */
function fetched(url) {
  const known = cache.get(url);
  if (known && Date.now() - known.at < CACHE_TIMEOUT_MS) return known.answer;
  const answer = fetch(url)
    .then(async (response) => ({document: response.ok ? await response.json() : null, status: response.status}))
    .catch(() => ({document: null, status: 0}))
    .then((result) => {
      if (result.status !== 200 && result.status !== 404) cache.delete(url);
      return result;
    });
  cache.set(url, {at: Date.now(), answer});
  return answer;
}

/** @param {string} version as "nightly/121" @returns {[string, number]} */
function order(version) {
  const [channel, number] = version.split("/");
  return [channel, Number.parseInt(number, 10)];
}

/** @param {string} one @param {string} other */
function compared(one, other) {
  const [channel, version] = order(one), [otherChannel, otherVersion] = order(other);
  return channel < otherChannel ? -1 : channel > otherChannel ? 1 : version - otherVersion;
}

/** @type {Promise<void> | undefined} */
let loading;

const Telemetry = {
  BASE_URL: `${new URL(/** @type {HTMLScriptElement | null} */ (document.currentScript)?.src || location.href).origin}/`,
  /** @type {Releases | null} */
  CHANNEL_VERSION_DATES: null,
  /** @type {Releases | null} */
  CHANNEL_VERSION_BUILDIDS: null,
  CACHE_TIMEOUT: CACHE_TIMEOUT_MS,
  MAX_URL_LENGTH,
  Histogram,
  Evolution,

  /** @param {string} url @param {(document: any, status: number) => void} callback */
  getJSON(url, callback) {
    check(url.length <= MAX_URL_LENGTH, `\`url\` is too long (${url.length} > ${MAX_URL_LENGTH})`);
    void fetched(url).then(({document: found, status}) => callback(found, status));
  },

  /** @param {() => void} callback */
  init(callback) {
    loading ??= (async () => {
      const builds = /** @type {Releases} */ ({}), dates = /** @type {Releases} */ ({});
      for (const [prefix, into] of /** @type {[string, Releases][]} */ ([["build_id", builds], ["submission_date", dates]])) {
        const path = `${Telemetry.BASE_URL}aggregates_by/${prefix}/channels/`;
        const {document: channels} = await fetched(path);
        await Promise.all((channels ?? []).map(async (/** @type {string} */ channel) => {
          into[channel] = {};
          const {document: entries} = await fetched(`${path}${encodeURIComponent(channel)}/dates/`);
          for (const {version, date} of entries ?? []) (into[channel][version] ??= []).push(date);
        }));
      }
      Telemetry.CHANNEL_VERSION_BUILDIDS = builds;
      Telemetry.CHANNEL_VERSION_DATES = dates;
    })();
    void loading.then(callback);
  },

  /** @param {string} [from] @param {string} [to] @returns {string[]} as "nightly/121" */
  getVersions(from, to) {
    const {CHANNEL_VERSION_DATES: dates, CHANNEL_VERSION_BUILDIDS: builds} = Telemetry;
    check(dates && builds, "Telemetry.js must be initialized before use");
    const versions = Object.entries(dates ?? {})
      .flatMap(([channel, known]) => Object.keys(known).filter((version) => builds?.[channel]?.[version]).map((version) => `${channel}/${version}`))
      .sort(compared);
    return from === undefined || to === undefined ? versions : versions.filter((version) => compared(from, version) <= 0 && compared(version, to) <= 0);
  },

  /**
   * @param {string} channel
   * @param {string} version
   * @param {(options: Record<string, string[]>) => void} callback
   */
  getFilterOptions(channel, version, callback) {
    Telemetry.getJSON(`${Telemetry.BASE_URL}filters/?${new URLSearchParams({channel, version})}`, (options) => callback(options ?? {}));
  },

  /**
   * @param {string} channel
   * @param {string} version
   * @param {string} metric
   * @param {unknown} _
   * @param {(kind: string | null, description: string | null, buckets: (number | string)[] | null, dates: string) => void} callback
   */
  getHistogramInfo(channel, version, metric, _, callback) {
    const dates = Telemetry.CHANNEL_VERSION_DATES?.[channel]?.[version] ?? [];
    void answers(channel, version, metric, {}, true).then(([answer]) =>
      callback(answer?.kind ?? null, answer?.description ?? null, answer?.buckets ?? null, dates.join(",")));
  },

  /**
   * @param {string} channel
   * @param {string} version
   * @param {string} metric
   * @param {Record<string, string | string[]>} filters
   * @param {boolean} useSubmissionDate
   * @param {(evolutions: Record<string, Evolution>) => void} callback by key; a plain metric has the key ""
   */
  getEvolution(channel, version, metric, filters, useSubmissionDate, callback) {
    void answers(channel, version, metric, filters, useSubmissionDate).then((found) => {
      /** @type {Record<string, Entry[]>} */
      const entries = {};
      for (const {data} of found) for (const entry of data) (entries[entry.label] ??= []).push(entry);
      const [first] = found;
      callback(Object.fromEntries(Object.entries(entries).map(([label, data]) => [label, new Evolution(first.buckets, data, first.kind, first.description, metric)])));
    });
  },
};

/**
 * The answers for all dates of a version: several, where one address would be too long.
 * @param {string} channel
 * @param {string} version
 * @param {string} metric
 * @param {Record<string, string | string[]>} filters
 * @param {boolean} useSubmissionDate
 * @returns {Promise<Answer[]>}
 */
async function answers(channel, version, metric, filters, useSubmissionDate) {
  const releases = useSubmissionDate ? Telemetry.CHANNEL_VERSION_DATES : Telemetry.CHANNEL_VERSION_BUILDIDS;
  check(releases, "Telemetry.js must be initialized before use");
  const path = `${Telemetry.BASE_URL}aggregates_by/${useSubmissionDate ? "submission_date" : "build_id"}/channels/${encodeURIComponent(channel)}/`;
  /** @param {string[]} dates */
  const url = (dates) => {
    const parameters = new URLSearchParams({version, dates: dates.join(","), metric});
    // Always in the same order, so that the same question has the same address.
    for (const name of Object.keys(filters).sort()) for (const value of [filters[name]].flat()) parameters.append(name, value);
    return `${path}?${parameters}`;
  };
  /** @param {string[]} dates @returns {string[]} */
  const urls = (dates) => {
    const middle = Math.ceil(dates.length / 2);
    return url(dates).length <= MAX_URL_LENGTH || dates.length < 2 ? [url(dates)] : [...urls(dates.slice(0, middle)), ...urls(dates.slice(middle))];
  };
  const found = await Promise.all(urls(releases?.[channel]?.[version] ?? []).map(fetched));
  return found.flatMap(({document: answer}) => answer ?? []);
}

Object.assign(window, {Telemetry});
