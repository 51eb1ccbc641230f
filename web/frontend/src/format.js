// Numbers and dates for people; always in English, as the pages are.
const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const short = new Intl.NumberFormat("en", {notation: "compact", maximumFractionDigits: 1});
const percent = new Intl.NumberFormat("en", {style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1});
const fine = new Intl.NumberFormat("en", {style: "percent", maximumSignificantDigits: 2});

/** @param {number | null | undefined} value */
export const count = (value) => (value == null ? "–" : whole.format(value));
/** @param {number | null | undefined} value */
export const compact = (value) => (value == null ? "–" : Math.abs(value) < 10000 ? quantity(value) : short.format(value));

/**
 * What a metric is: the family of a measure, the kind of a histogram.
 * @param {import("./types").Metric} metric
 */
export const kindOf = ({family, kind, keyed}) => `${family === "histogram" ? kind : family}${keyed ? ", keyed" : ""}`;

/**
 * Three significant digits, and never fewer than the whole part has.
 * @param {number | null | undefined} value
 */
export function quantity(value) {
  if (value == null) return "–";
  const digits = Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString("en", {maximumFractionDigits: digits});
}

/** @param {number | null | undefined} value */
export const share = (value) =>
  value == null ? "–" : value !== 0 && Math.abs(value) < 0.001 ? fine.format(value) : percent.format(value);

/** @param {string} name a percentile as the API names it */
export const ordinal = (name) => {
  if (name === "50") return "median";
  if (name.includes(".")) return `${name}th`;
  return `${name}${name.endsWith("1") && name !== "11" ? "st" : "th"}`;
};

/** @param {number} value @param {string} noun */
export const many = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** @param {import("./types").Bucket} bucket */
export const bucketName = ({start, end, label}) =>
  label ?? (end === null ? `${count(start)} and more` : end - start === 1 ? count(start) : `${count(start)} to ${count(end - 1)}`);
