// The evolution view: percentiles over dates, with pings and samples below; one pointer in all charts.
import * as Plot from "@observablehq/plot";
import {brushX} from "d3-brush";
import {select} from "d3-selection";
import {describe, svg} from "./distribution.js";
import {byId, colour, element} from "./dom.js";
import {compact, count, many, ordinal, quantity, share} from "./format.js";
import {pointer} from "./pointer.js";
import {fill, showSummary} from "./summary.js";

/** @typedef {import("./types").Evolution} Evolution */
/** @typedef {import("./state.js").Changes} Changes */
/**
 * A line of the chart: `series` is its place among the series of the answer.
 * @typedef {{name: string, values: (number | null)[], series: number, colour: string, width: number, dash: string}} Line
 */

const HEIGHT = 340;
const SMALL_HEIGHT = 108;
const MARGIN_LEFT = 52;
const POINTS_MAX_COUNT = 400;
const LABELS_MIN_WIDTH = 560;

/**
 * @param {Evolution} answer
 * @param {URLSearchParams} parameters
 * @param {(changes: Changes) => void} change
 */
export function showEvolution(answer, parameters, change) {
  const {series, dates} = answer;
  showSummary(
    answer,
    null,
    (place) => count(series[place].pings.filter((value) => value !== null).length),
  );
  const into = byId("charts");
  const width = into.clientWidth || 640;
  const lines = linesOf(answer, parameters);
  const days = dates.map((date) => new Date(`${date}T00:00:00Z`));
  const format = answer.has_percentiles ? quantity : share;
  const main = mainChart(answer, lines, days, width);
  const pings = smallChart(answer, days, width, "pings");
  const samples = smallChart(answer, days, width, "samples");
  const readout = element("div", {class: "readout", role: "status", hidden: true});
  const frame = element("div", {class: "chart-frame", id: "chart-evolution", tabindex: 0, role: "group", "aria-label": "Chart: the arrow keys go from date to date, Enter sets the reference"}, main, readout);
  const overview = element("div", {class: "chart-frame", id: "chart-pings"}, pings);
  const below = element("div", {class: "chart-frame", id: "chart-samples"}, samples);
  const points = element("div", {class: "scroll", id: "points", hidden: true});
  // Where names do not fit beside the ends of lines.
  const isNarrow = width <= LABELS_MIN_WIDTH;
  const legend = element("p", {class: "chart-label", id: "legend"}, ...lines.map((line) => element("span", {class: "series-name"}, key(line), line.name)));
  into.replaceChildren(
    ...(lines.length > 1 && (isNarrow || !answer.has_percentiles) ? [legend] : []),
    frame,
    points,
    element("p", {class: "chart-label"}, element("span", {}, "Pings"), element("span", {}, "drag over dates to zoom in"),
      ...(parameters.get("dates") ? [element("button", {type: "button", class: "quiet", id: "zoom-out", onclick: () => change({dates: null, reference: null})}, "All dates")] : [])),
    overview,
    element("p", {class: "chart-label"}, "Samples"),
    below,
  );
  addBrush(pings, days, dates, change);

  const scale = /** @type {any} */ (main).scale("x");
  const pointed = [main, pings, samples].map((plot) => {
    const line = svg("line", {class: "pointed-line", y1: 0, y2: Number(plot.getAttribute("height"))});
    plot.append(line);
    return line;
  });
  const reference = parameters.get("reference");
  const referencePlace = reference === null ? -1 : dates.indexOf(reference);
  if (referencePlace >= 0) {
    const x = scale.apply(days[referencePlace]);
    main.append(svg("line", {class: "reference-line", x1: x, x2: x, y1: 0, y2: HEIGHT}));
    showPoints(referencePlace, referencePlace);
  }

  /** @param {number} place @param {number} from */
  function showPoints(place, from) {
    const table = element("table", {class: "point-table"});
    const isSame = place === from;
    fill(
      table,
      ["Against the reference", `${dates[from]} (reference)`, ...(isSame ? [] : [dates[place], "Difference"])],
      lines.map((line) => {
        const before = line.values[from], now = line.values[place];
        const difference = before !== null && now !== null ? now - before : null;
        return [line.name, format(before), ...(isSame ? [] : [format(now), difference === null ? "–" : `${difference > 0 ? "+" : ""}${format(difference)}${before ? ` (${difference > 0 ? "+" : ""}${share(difference / before)})` : ""}`])];
      }),
      `The values on ${dates[place]} against those on ${dates[from]}`,
    );
    points.replaceChildren(table, element("button", {type: "button", class: "quiet", id: "reference-off", onclick: () => change({reference: null})}, "Remove the reference"));
    points.hidden = false;
  }

  /** @param {number | null} place */
  const show = (place) => {
    readout.hidden = place === null;
    for (const line of pointed) line.classList.toggle("shown", place !== null);
    if (place === null) return;
    const x = scale.apply(days[place]);
    for (const line of pointed) {
      line.setAttribute("x1", String(x));
      line.setAttribute("x2", String(x));
    }
    readout.replaceChildren(
      element("strong", {}, dates[place]),
      ...lines.map((line) => {
        return element("span", {class: "line"}, key(line), element("span", {}, line.name), element("b", {}, format(line.values[place])));
      }),
      element("span", {class: "muted"}, `${many(sum(series.map((each) => each.pings[place])), "ping")}, ${many(sum(series.map((each) => each.samples[place])), "sample")}`),
    );
    const gap = 14, box = readout.offsetWidth;
    readout.style.left = `${x + gap + box < frame.clientWidth ? x + gap : Math.max(0, x - gap - box)}px`;
    if (referencePlace >= 0) showPoints(place, referencePlace);
  };
  const times = days.map(Number);
  const act = {
    places: dates.length,
    placeAt: (/** @type {number} */ x) => nearest(times, Number(scale.invert(x))),
    show,
  };
  pointer(frame, {...act, choose: (place) => change({reference: dates[place] === reference ? null : dates[place]})});
  pointer(overview, act);
  pointer(below, act);
}

/** @param {Evolution} answer */
export function evolutionTitle({has_percentiles, selection}) {
  const by = selection.by === "build" ? "build date" : "submission date";
  return has_percentiles ? `Percentiles and mean by ${by}` : `Share of each value by ${by}`;
}

/** @param {Evolution} answer @returns {string[]} */
export function evolutionNotes({undated_pings, selection, definition, marks, series, has_percentiles}) {
  const notes = [];
  if (has_percentiles && series.length > 1 && selection.percentiles.join() === "5,25,50,75,95") notes.push("Of several series the chart has the median, until percentiles are chosen; the table has all.");
  if (undated_pings) notes.push(`${many(undated_pings, "ping")} without a build date ${undated_pings === 1 ? "is" : "are"} not shown.`);
  if (marks.length) notes.push("A dotted line marks the first date on which a version is at least 5 % of the pings.");
  if (selection.weight === "client") notes.push("Every client of a day counts the same, however many samples it has; there is no mean of that.");
  if (definition) notes.push(`Buckets: ${definition}.`);
  return notes;
}

/** @param {Line} line */
function key(line) {
  const made = element("span", {class: "swatch", "aria-hidden": "true"});
  made.style.background = line.colour;
  return made;
}

/** @param {(number | null)[]} values */
const sum = (values) => values.reduce((/** @type {number} */ all, value) => all + (value ?? 0), 0);

/** @param {number[]} sorted @param {number} value */
function nearest(sorted, value) {
  let best = 0;
  for (let place = 1; place < sorted.length; place++) if (Math.abs(sorted[place] - value) < Math.abs(sorted[best] - value)) best = place;
  return best;
}

/**
 * One series is told apart by its percentiles; of several, the median and what was asked for by name.
 * @param {Evolution} answer
 * @param {URLSearchParams} parameters
 * @returns {Line[]}
 */
function linesOf({series, has_percentiles, selection}, parameters) {
  if (!has_percentiles) {
    if (series.length === 1) {
      return Object.entries(series[0].shares).map(([label, values], place) => ({name: label, values, series: 0, colour: colour(place), width: 2, dash: ""}));
    }
    const labels = [...new Set(series.flatMap(({shares}) => Object.keys(shares)))].slice(0, 3);
    return series.flatMap((each, place) => labels.flatMap((label, number) => (each.shares[label] ? [{name: `${each.name}: ${label}`, values: each.shares[label], series: place, colour: colour(place), width: 2, dash: ["", "6 3", "2 3"][number]}] : [])));
  }
  const percents = selection.percentiles;
  if (series.length === 1) {
    const [only] = series;
    return [
      ...percents.toReversed().map((percent) => ({
        name: ordinal(percent), values: only.percentiles[percent], series: 0,
        colour: percent === "50" ? colour(0) : `color-mix(in oklab, ${colour(0)} 62%, var(--muted))`, width: percent === "50" ? 2.4 : 1.2, dash: "",
      })),
      ...(only.means.some((mean) => mean !== null) ? [{name: "mean", values: only.means, series: 0, colour: colour(1), width: 1.6, dash: "5 4"}] : []),
    ];
  }
  const middle = percents.includes("50") ? "50" : percents[Math.floor(percents.length / 2)];
  const wanted = parameters.has("percentiles") ? percents : [middle].filter(Boolean);
  return series.flatMap((each, place) => wanted.toReversed().map((percent) => ({
    name: `${each.name}${wanted.length > 1 ? `, ${ordinal(percent)}` : ""}`, values: each.percentiles[percent], series: place,
    colour: colour(place), width: percent === middle ? 2.2 : 1.2, dash: percent === middle ? "" : "4 3",
  })));
}

/**
 * @param {Evolution} answer
 * @param {Line[]} lines
 * @param {Date[]} days
 * @param {number} width
 */
function mainChart({series, has_percentiles, marks, selection}, lines, days, width) {
  const [only] = series;
  const right = width > LABELS_MIN_WIDTH ? 84 : 16;
  const drawn = [];
  if (series.length === 1 && has_percentiles) {
    for (const [low, high, opacity] of /** @type {[string, string, number][]} */ ([["5", "95", 0.08], ["25", "75", 0.14]])) {
      if (!selection.percentiles.includes(low) || !selection.percentiles.includes(high)) continue;
      const band = days.map((day, place) => ({day, low: only.percentiles[low][place], high: only.percentiles[high][place]}));
      drawn.push(Plot.areaY(band, {x: "day", y1: "low", y2: "high", fill: colour(0), fillOpacity: opacity, ariaLabel: () => `${low}th to ${high}th percentile`}));
    }
  }
  for (const line of lines) {
    // Channels have builds on different days: a line goes on where it has its next value.
    const points = days.map((day, place) => ({day, value: line.values[place]})).filter(({value}) => value !== null);
    drawn.push(Plot.lineY(points, {x: "day", y: "value", stroke: line.colour, strokeWidth: line.width, strokeDasharray: line.dash || undefined, strokeLinejoin: "round", ariaLabel: () => line.name}));
    if (days.length <= POINTS_MAX_COUNT) {
      drawn.push(Plot.dot(points, {
        x: "day", y: "value", r: days.length > 90 ? 1 : 1.8, fill: line.colour,
        ariaLabel: (/** @type {{day: Date, value: number | null}} */ {day, value}) => `${day.toISOString().slice(0, 10)}, ${line.name}: ${has_percentiles ? quantity(value) : share(value)}`,
      }));
    }
  }
  if (width > LABELS_MIN_WIDTH) {
    const ends = lines.flatMap((line) => {
      const place = line.values.findLastIndex((value) => value !== null);
      return place < 0 ? [] : [{day: days[place], value: /** @type {number} */ (line.values[place]), name: line.name, colour: line.colour}];
    });
    const top = Math.max(...lines.flatMap(({values}) => values.map((value) => value ?? 0)), 1e-9);
    drawn.push(Plot.text(apart(ends, top), {x: "day", y: "shown", text: (/** @type {{name: string}} */ {name}) => (name.length > 13 ? `${name.slice(0, 12)}…` : name), fill: (/** @type {{colour: string}} */ end) => end.colour, textAnchor: "start", dx: 8, fontSize: 11, fontWeight: 600}));
  }
  const begun = [...new Set(marks.map(({date}) => date))].map((date) => ({
    day: new Date(`${date}T00:00:00Z`),
    version: marks.filter((mark) => mark.date === date).map(({version}) => version).join(", "),
  }));
  drawn.push(
    Plot.ruleX(begun, {x: "day", stroke: "var(--line-strong)", strokeDasharray: "2,3"}),
    Plot.text(begun, {x: "day", text: "version", frameAnchor: "top", dy: -14, fontSize: 11, fill: "var(--muted)"}),
    Plot.ruleY([0], {stroke: "var(--line-strong)"}),
  );
  const plot = /** @type {SVGSVGElement} */ (Plot.plot({
    width, height: HEIGHT, marginLeft: MARGIN_LEFT, marginRight: right, marginTop: 22, marginBottom: 28, className: "plot",
    x: {type: "utc", domain: domain(days), label: null, ticks: Math.max(2, Math.floor(width / 110))},
    y: {grid: true, zero: true, nice: true, label: null, ticks: 6, tickFormat: (/** @type {number} */ value) => (has_percentiles ? compact(value) : share(value).replace(".0%", "%"))},
    marks: drawn,
  }));
  describe(plot, `${lines.map(({name}) => name).join("; ")} on ${many(days.length, "date")}. The numbers are in the table below.`);
  return plot;
}

/**
 * Labels at the ends of lines, moved apart where they would cover each other.
 * @template {{value: number}} T
 * @param {T[]} ends
 * @param {number} top
 */
function apart(ends, top) {
  const least = (top / (HEIGHT - 50)) * 13;
  let free = -Infinity;
  return ends.toSorted((one, other) => one.value - other.value).map((end) => {
    free = Math.max(end.value, free);
    const shown = free;
    free += least;
    return {...end, shown};
  });
}

/** @param {Date[]} days */
function domain(days) {
  const first = days[0] ?? new Date(0), end = days.at(-1) ?? first;
  return first < end ? [first, end] : [new Date(Number(first) - 43_200_000), new Date(Number(end) + 43_200_000)];
}

/**
 * @param {Evolution} answer
 * @param {Date[]} days
 * @param {number} width
 * @param {"pings" | "samples"} what
 */
function smallChart({series}, days, width, what) {
  const right = width > LABELS_MIN_WIDTH ? 84 : 16;
  const plot = /** @type {SVGSVGElement} */ (Plot.plot({
    width, height: SMALL_HEIGHT, marginLeft: MARGIN_LEFT, marginRight: right, marginTop: 6, marginBottom: 32, className: "plot",
    x: {type: "utc", domain: domain(days), label: null, ticks: Math.max(2, Math.floor(width / 110))},
    y: {grid: true, zero: true, label: null, ticks: 2, tickFormat: compact},
    marks: [
      ...series.map((each, place) => Plot.lineY(days.map((day, at) => ({day, value: each[what][at]})).filter(({value}) => value !== null), {x: "day", y: "value", stroke: colour(place), strokeWidth: 1.4, ariaLabel: () => `${what} of ${each.name}`})),
      ...(series.length === 1 ? [Plot.areaY(days.map((day, at) => ({day, value: series[0][what][at]})), {x: "day", y: "value", fill: colour(0), fillOpacity: 0.1})] : []),
      Plot.ruleY([0], {stroke: "var(--line-strong)"}),
    ],
  }));
  describe(plot, `${what} by date`);
  return plot;
}

/**
 * @param {SVGSVGElement} plot
 * @param {Date[]} days
 * @param {string[]} dates
 * @param {(changes: Changes) => void} change
 */
function addBrush(plot, days, dates, change) {
  if (days.length < 3) return;
  const scale = /** @type {any} */ (plot).scale("x");
  const [left, right] = scale.range;
  const brush = /** @type {import("d3-brush").BrushBehavior<unknown>} */ (brushX())
    .extent([[left, 6], [right, SMALL_HEIGHT - 32]])
    .on("end", ({selection, sourceEvent}) => {
      if (!selection || !sourceEvent) return;
      const [from, to] = selection.map((/** @type {number} */ x) => Number(scale.invert(x)));
      const inside = dates.filter((_, place) => Number(days[place]) >= from && Number(days[place]) <= to);
      if (inside.length) change({dates: `${inside[0]}..${inside.at(-1)}`});
    });
  select(plot).append("g").attr("class", "brush").call(/** @type {any} */ (brush));
}

/** @param {Evolution} answer @param {HTMLElement} into */
export function evolutionTable({series, dates, selection, has_percentiles}, into) {
  const table = element("table", {class: "numbers"});
  const percents = has_percentiles ? selection.percentiles : [];
  const hasMean = series.some(({means}) => means.some((mean) => mean !== null));
  const labels = [...new Set(series.flatMap(({shares}) => Object.keys(shares)))];
  const lines = series.flatMap((each) => dates.flatMap((date, place) =>
    each.pings[place] === null ? [] : [[
      date, ...(series.length > 1 ? [each.name] : []),
      count(each.pings[place]), count(each.clients[place]), count(each.samples[place]),
      ...(hasMean ? [quantity(each.means[place])] : []),
      ...percents.map((percent) => quantity(each.percentiles[percent][place])),
      ...labels.map((label) => share(each.shares[label]?.[place])),
    ]]));
  fill(
    table,
    ["Date", ...(series.length > 1 ? ["Series"] : []), "Pings", "Client-days", "Samples", ...(hasMean ? ["Mean"] : []), ...percents.map(ordinal), ...labels],
    lines,
    "Values by date",
  );
  into.replaceChildren(table);
}
