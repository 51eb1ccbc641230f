// Links of telemetry.mozilla.org's second version: everything after "#!", as in
// #!max_channel_version=nightly%2F45&measure=GC_MS&product=Firefox&os=Windows_NT&use_submission_date=1

/** @type {Record<string, string>} */
const COMPARED = {os: "os", os_version: "os", architecture: "architecture", e10s: "process", processType: "process"};
/** @type {Record<string, string>} */
const SYSTEMS = {Windows_NT: "Windows", Darwin: "Mac"};
const NOTHING = new Set(["", "*", "null", "any", "__none__"]);

/** The aggregates of an old evolution page, as percentiles. */
/** @type {Record<string, string>} */
const AGGREGATES = {median: "50", "5th-percentile": "5", "25th-percentile": "25", "75th-percentile": "75", "95th-percentile": "95"};

/**
 * What an old link asks for, in today's parameters; null when the text is not an old link.
 * @param {string} hash
 * @returns {import("./state.js").Changes | null}
 */
export function oldSelection(hash) {
  if (!hash.startsWith("#!")) return null;
  const old = new URLSearchParams(hash.slice(2));
  // The old pages escaped what was escaped already: nightly%252F45.
  for (const [name, value] of [...old]) {
    if (!/%[0-9A-F]{2}/i.test(value)) continue;
    try {
      old.set(name, decodeURIComponent(value));
    } catch {
      // A key may have a percent sign of its own.
    }
  }
  /** @param {string} name */
  const list = (name) => (old.get(name) ?? "").split("!").filter((value) => !NOTHING.has(value));
  const [channel = "", high = ""] = (old.get("max_channel_version") ?? "").split("/");
  const [, low = ""] = (old.get("min_channel_version") ?? "").split("/");
  const dates = [old.get("start_date"), old.get("end_date")].filter((date) => date && /^\d{4}-\d\d-\d\d$/.test(date));
  const percents = list("aggregates").flatMap((name) => AGGREGATES[name] ?? []).sort((one, other) => Number(one) - Number(other));
  return {
    metric: old.get("measure"),
    channel: NOTHING.has(channel) ? null : channel,
    versions: NOTHING.has(high) ? null : low && low !== high && !NOTHING.has(low) ? `${low}..${high}` : high,
    application: list("product"),
    os: [...new Set(list("os").map((system) => SYSTEMS[system.split(",")[0]] ?? system.split(",")[0]))],
    architecture: list("arch"),
    process: list("processType"),
    key: list("keys"),
    by: old.get("use_submission_date") === "1" ? "submission" : null,
    dates: dates.length === 2 ? `${dates[0]}..${dates[1]}` : null,
    compare: COMPARED[old.get("compare") ?? ""] ?? null,
    cumulative: old.get("cumulative") === "1" ? "1" : null,
    table: old.get("table") === "1" ? "1" : null,
    trim: old.get("trim") === "1" ? "1" : null,
    percentiles: percents.length ? percents.join(",") : null,
  };
}
