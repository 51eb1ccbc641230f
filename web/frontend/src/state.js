// What is chosen is in the address and nowhere else: parameters as the API has them, without defaults.

/** Parameters that only the page looks at. */
export const DISPLAY = ["cumulative", "reference", "table"];

/** The order of parameters in an address. */
const ORDER = [
  "metric", "channel", "versions", "application", "os", "architecture", "process", "key", "rest", "ping",
  "by", "dates", "compare", "weight", "definition", "percentiles", "trim", ...DISPLAY,
];
/** @type {Record<string, string>} */
const DEFAULTS = {by: "build", weight: "samples", trim: "0", rest: "0", cumulative: "0", percentiles: "5,25,50,75,95"};

/** @typedef {Record<string, string | string[] | null>} Changes */

/** @returns {URLSearchParams} */
export function current() {
  return new URLSearchParams(location.search);
}

/**
 * The parameters `before` with changes: null or "" removes one, a list repeats it.
 * @param {URLSearchParams} before
 * @param {Changes} changes
 */
export function changed(before, changes) {
  const values = new Map(ORDER.map((name) => [name, before.getAll(name)]));
  for (const [name, value] of Object.entries(changes)) {
    values.set(name, value === null || value === "" ? [] : Array.isArray(value) ? value : [value]);
  }
  const after = new URLSearchParams();
  for (const name of ORDER) {
    for (const value of values.get(name) ?? []) if ((value !== "" || name === "key") && value !== DEFAULTS[name]) after.append(name, value);
  }
  return after;
}

/**
 * As readable as addresses allow: commas, slashes and colons stay as they are.
 * @param {URLSearchParams} parameters
 */
export function query(parameters) {
  const text = parameters.toString().replaceAll("%2C", ",").replaceAll("%2F", "/").replaceAll("%3A", ":");
  return text ? `?${text}` : "";
}

/**
 * The parameters that the API is asked with.
 * @param {URLSearchParams} parameters
 */
export function asked(parameters) {
  const left = new URLSearchParams(parameters);
  for (const name of DISPLAY) left.delete(name);
  return query(left);
}
