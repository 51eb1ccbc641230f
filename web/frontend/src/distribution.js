// The distribution view: bars for one histogram, steps for several, and bars by name for names.
import * as Plot from "@observablehq/plot";
import {byId, colour, element, swatch} from "./dom.js";
import {bucketName, count, compact, many, ordinal, quantity, share} from "./format.js";
import {pointer} from "./pointer.js";
import {fill, showSummary} from "./summary.js";

/** @typedef {import("./types").Distribution} Distribution */

const HEIGHT = 340;
const LABEL_WIDTH = 58;

/**
 * @param {Distribution} answer
 * @param {URLSearchParams} parameters
 */
export function showDistribution(answer, parameters) {
  const cumulative = parameters.get("cumulative") === "1";
  showSummary(
    answer,
    (place, percent) => answer.series[place].percentiles[percent],
    (place) => count(answer.series[place].dates),
  );
  byId("charts").replaceChildren(chart(answer, cumulative, byId("charts").clientWidth || 640));
}

/** @param {Distribution} answer @param {boolean} cumulative */
export function distributionTitle(answer, cumulative) {
  const whose = answer.selection.weight === "client" ? "clients, each with the same weight" : "samples";
  return cumulative ? `Share of ${whose} up to each bucket` : `Share of ${whose} in each bucket`;
}

/** @param {Distribution} answer @returns {string[]} */
export function distributionNotes({trimmed, series, selection, definition}) {
  const notes = [];
  if (trimmed.buckets) notes.push(`${many(trimmed.buckets, "bucket")} at the ends ${trimmed.buckets === 1 ? "is" : "are"} trimmed, with ${many(trimmed.samples, "sample")} in all; percentiles and means are of all samples.`);
  const dates = series.flatMap(({first_date, last_date}) => (first_date && last_date ? [first_date, last_date] : [])).sort();
  if (dates.length) notes.push(`${selection.by === "build" ? "Builds" : "Pings"} from ${dates[0]} to ${dates.at(-1)}.`);
  if (definition) notes.push(`Buckets: ${definition}.`);
  return notes;
}

/** @param {number[]} values */
function sums(values) {
  let sum = 0;
  return values.map((value) => (sum += value));
}

/**
 * @param {Distribution} answer
 * @param {boolean} cumulative
 * @param {number} width
 */
function chart(answer, cumulative, width) {
  const {buckets, series} = answer;
  const values = series.map(({shares}) => (cumulative ? sums(shares) : shares));
  const named = !answer.has_percentiles;
  const plot = /** @type {SVGSVGElement} */ (named ? names(answer, values, width) : steps(answer, values, width, cumulative));
  const frame = element("div", {class: "chart-frame", id: "chart-distribution"}, plot);
  describe(plot, `${distributionTitle(answer, cumulative)}: ${series.map(({name}) => name).join(", ")} in ${many(buckets.length, "bucket")}. The numbers are in the table below.`);
  if (named) return frame;
  const readout = element("div", {class: "readout", role: "status", hidden: true});
  const scale = plotScale(plot);
  frame.tabIndex = 0;
  frame.setAttribute("role", "group");
  frame.setAttribute("aria-label", "Chart: the arrow keys go from bucket to bucket");
  frame.append(readout);
  const mark = svg("rect", {class: "pointed", y: 0, height: HEIGHT});
  plot.prepend(mark);
  pointer(frame, {
    places: buckets.length,
    placeAt: (x) => Math.floor(scale.invert(x)),
    show: (place) => {
      readout.hidden = place === null;
      mark.classList.toggle("shown", place !== null);
      if (place === null) return;
      const left = scale.apply(place), right = scale.apply(place + 1);
      mark.setAttribute("x", String(left));
      mark.setAttribute("width", String(right - left));
      readout.replaceChildren(
        element("strong", {}, bucketName(buckets[place])),
        ...series.map((each, number) =>
          element("span", {class: "line"}, swatch(number), element("span", {}, series.length > 1 ? each.name : cumulative ? "up to here" : ""), element("b", {}, share(values[number][place])), element("span", {class: "muted"}, many(each.counts[place], "sample")))),
      );
      const gap = 10, box = readout.offsetWidth;
      readout.style.left = `${right + gap + box < frame.clientWidth ? right + gap : Math.max(0, left - gap - box)}px`;
    },
  });
  return frame;
}

/**
 * To a screen reader a chart is one picture with a description, and the table has its numbers. What Plot says of
 * its parts becomes data of the elements.
 * @param {SVGSVGElement} plot
 * @param {string} description
 */
export function describe(plot, description) {
  for (const part of plot.querySelectorAll("[aria-label]")) {
    part.setAttribute("data-label", part.getAttribute("aria-label") ?? "");
    part.removeAttribute("aria-label");
  }
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", description);
}

/** @param {SVGSVGElement} plot @returns {{apply: (value: number) => number, invert: (x: number) => number}} */
const plotScale = (plot) => /** @type {any} */ (plot).scale("x");

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 */
export function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, String(value));
  return made;
}

/**
 * Buckets have the same width whatever their range: half of an exponential histogram would else be a line.
 * @param {Distribution} answer
 * @param {number[][]} values
 * @param {number} width
 * @param {boolean} cumulative
 */
function steps(answer, values, width, cumulative) {
  const {buckets, series} = answer;
  const one = series.length === 1;
  const every = Math.max(1, Math.ceil((buckets.length * LABEL_WIDTH) / Math.max(200, width - 80)));
  const ticks = buckets.map((_, place) => place).filter((place) => place % every === 0);
  const marks = [];
  let rows = 0;
  if (one) {
    marks.push(Plot.rectY(values[0].map((y, place) => ({y, place})), {
      x1: "place", x2: (/** @type {{place: number}} */ {place}) => place + 1, y: "y", fill: colour(0), insetLeft: 0.5, insetRight: 0.5, rx: 1,
      ariaLabel: (/** @type {{place: number, y: number}} */ {place, y}) => `${bucketName(buckets[place])}: ${share(y)}, ${count(series[0].counts[place])} samples`,
    }));
  } else {
    for (const [number, each] of series.entries()) {
      const points = [...values[number].map((y, place) => ({y, place})), {y: values[number].at(-1) ?? 0, place: buckets.length}];
      marks.push(
        Plot.areaY(points, {x: "place", y: "y", curve: "step-after", fill: colour(number), fillOpacity: 0.07}),
        Plot.lineY(points, {x: "place", y: "y", curve: "step-after", stroke: colour(number), strokeWidth: 1.8, strokeLinejoin: "round", ariaLabel: () => each.name}),
      );
    }
  }
  if (one && !cumulative) {
    const lines = Object.entries(series[0].percentiles).flatMap(([percent, value]) => {
      const place = placeOf(buckets, value);
      return place === null ? [] : [{percent, value, place}];
    });
    const labelled = spread(lines, (width - 60) / buckets.length);
    rows = Math.max(0, ...labelled.map(({row}) => row + 1));
    marks.push(
      Plot.ruleX(lines, {x: "place", stroke: "var(--ink)", strokeOpacity: 0.55, strokeDasharray: "2,3"}),
      ...[0, 1, 2, 3].map((row) =>
        Plot.text(labelled.filter((line) => line.row === row), {
          x: "place", frameAnchor: "top", dy: -14 * (row + 1), text: (/** @type {{percent: string, value: number}} */ line) => `${ordinal(line.percent)} ${quantity(line.value)}`,
          textAnchor: "start", dx: 4, fill: "var(--ink)", stroke: "var(--surface)", strokeWidth: 4, fontSize: 11,
        })),
    );
  }
  marks.push(Plot.ruleY([0], {stroke: "var(--line-strong)"}));
  return Plot.plot({
    width, height: HEIGHT, marginLeft: 48, marginRight: 12, marginTop: 14 + 14 * rows, marginBottom: 36,
    className: "plot",
    x: {type: "linear", domain: [0, buckets.length], ticks, tickFormat: (/** @type {number} */ place) => compact(buckets[place]?.start), label: null, tickSize: 4},
    y: {grid: true, label: null, tickFormat: (/** @type {number} */ value) => share(value).replace(".0%", "%"), ticks: 5, zero: true, ...(cumulative ? {domain: [0, 1]} : {nice: true})},
    marks,
  });
}

/**
 * Where a value is among buckets of equal width; null outside of those that are shown.
 * @param {import("./types").Bucket[]} buckets
 * @param {number} value
 */
function placeOf(buckets, value) {
  const place = buckets.findIndex(({start, end}) => value >= start && (end === null || value <= end));
  if (place < 0) return null;
  const {start, end} = buckets[place];
  return place + (end === null ? 0 : (value - start) / (end - start));
}

/**
 * Labels in up to four rows, so that those of neighbours do not cover each other.
 * @template {{place: number}} T
 * @param {T[]} lines
 * @param {number} unit
 */
function spread(lines, unit) {
  /** @type {number[]} */
  const ends = [];
  return lines.map((line) => {
    const start = line.place * unit;
    let row = ends.findIndex((end) => end < start);
    if (row < 0) row = ends.length < 4 ? ends.length : ends.indexOf(Math.min(...ends));
    ends[row] = start + 84;
    return {...line, row};
  });
}

/**
 * @param {Distribution} answer
 * @param {number[][]} values
 * @param {number} width
 */
function names({buckets, series}, values, width) {
  const bars = buckets.flatMap((bucket, place) => series.map((each, number) => ({label: bucketName(bucket), number, name: each.name, value: values[number][place], count: each.counts[place]})));
  const longest = Math.max(...buckets.map((bucket) => bucketName(bucket).length), 4);
  const left = Math.min(width * 0.42, longest * 7 + 14);
  const most = Math.floor((left - 12) / 6.6);
  return Plot.plot({
    width, marginLeft: left, marginRight: 60, marginTop: 4, marginBottom: 30,
    height: buckets.length * (series.length * 13 + 12) + 40,
    className: "plot",
    x: {grid: true, label: null, tickFormat: (/** @type {number} */ value) => share(value).replace(".0%", "%"), ticks: Math.max(2, Math.floor(width / 140)), zero: true},
    y: {axis: null, domain: series.map((_, number) => number), padding: 0.12},
    fy: {domain: buckets.map(bucketName), label: null, padding: 0.18, axis: "left", tickFormat: (/** @type {string} */ label) => (label.length > most ? `${label.slice(0, Math.max(1, most - 1))}…` : label), tickSize: 0},
    marks: [
      Plot.barX(bars, {
        x: "value", y: "number", fy: "label", fill: (/** @type {{number: number}} */ bar) => colour(bar.number), rx: 2,
        ariaLabel: (/** @type {typeof bars[number]} */ bar) => `${bar.label}${series.length > 1 ? `, ${bar.name}` : ""}: ${share(bar.value)}, ${count(bar.count)} samples`,
      }),
      Plot.text(bars, {x: "value", y: "number", fy: "label", text: (/** @type {{value: number}} */ bar) => share(bar.value), textAnchor: "start", dx: 5, fill: "var(--muted)", fontSize: 11}),
    ],
  });
}

/** @param {Distribution} answer @param {HTMLElement} into */
export function distributionTable(answer, into) {
  const {buckets, series, selection} = answer;
  const weighed = selection.weight === "client";
  const table = element("table", {class: "numbers"});
  const parts = weighed ? ["samples", "client weight", "share"] : ["samples", "share"];
  fill(
    table,
    ["Bucket", ...series.flatMap(({name}) => parts.map((part) => (series.length > 1 ? `${name}: ${part}` : part)))],
    buckets.map((bucket, place) => [
      bucketName(bucket),
      ...series.flatMap((each) => [count(each.counts[place]), ...(weighed ? [quantity(each.weights[place])] : []), share(each.shares[place])]),
    ]),
    "Samples in each bucket",
  );
  into.replaceChildren(table);
}
