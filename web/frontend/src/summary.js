// The table above a chart: one line for each series, which is the legend as well.
import {byId, element, swatch} from "./dom.js";
import {compact, count, ordinal, quantity} from "./format.js";

/**
 * @param {HTMLTableElement} table
 * @param {string[]} titles
 * @param {(Node | string)[][]} lines the first cell of each is its heading
 * @param {string} caption
 */
export function fill(table, titles, lines, caption) {
  table.replaceChildren(
    element("caption", {class: "visually-hidden"}, caption),
    element("thead", {}, element("tr", {}, ...titles.map((title, place) => element("th", {scope: "col", class: place ? "number" : ""}, title)))),
    element("tbody", {}, ...lines.map(([head, ...cells]) =>
      element("tr", {}, element("th", {scope: "row"}, head), ...cells.map((cell) => element("td", {class: "number"}, cell))))),
  );
}

/**
 * @param {import("./types").Distribution | import("./types").Evolution} answer
 * @param {((place: number, percent: string) => number | null | undefined) | null} percentile
 * @param {(place: number) => string} dates
 */
export function showSummary(answer, percentile, dates) {
  const percents = answer.has_percentiles && percentile ? answer.selection.percentiles : [];
  const hasMean = answer.series.some(({totals}) => totals.mean !== null);
  const table = /** @type {HTMLTableElement} */ (byId("summary"));
  fill(
    table,
    ["Series", "Pings", "Client-days", "Samples", "Dates", ...(hasMean ? ["Mean"] : []), ...percents.map(ordinal)],
    answer.series.map(({name, totals}, place) => [
      element("span", {class: "series-name"}, swatch(place), name),
      exact(totals.pings), exact(totals.clients), exact(totals.samples), dates(place),
      ...(hasMean ? [quantity(totals.mean)] : []),
      ...percents.map((percent) => quantity(percentile?.(place, percent))),
    ]),
    "Summary of each series",
  );
}

/** @param {number} value */
const exact = (value) => element("span", {title: count(value)}, compact(value));
