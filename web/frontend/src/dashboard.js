// Both views: from the address to an answer of the API, and from that to filters, charts and tables.
import {ask, Refused} from "./api.js";
import {metricSearch} from "./combobox.js";
import {distributionNotes, distributionTable, distributionTitle, showDistribution} from "./distribution.js";
import {byId, element} from "./dom.js";
import {evolutionNotes, evolutionTable, evolutionTitle, showEvolution} from "./evolution.js";
import {closeFiltersOutside, showFilters} from "./filters.js";
import {count, kindOf, many, ordinal} from "./format.js";
import {showFreshness} from "./freshness.js";
import {oldSelection} from "./old_links.js";
import {asked, changed, current, query} from "./state.js";

/** @typedef {import("./types").Distribution} Distribution */
/** @typedef {import("./types").Evolution} Evolution */

const PERCENTS = ["0.1", "1", "5", "25", "50", "75", "95", "99", "99.9"];
const LOOK_AGAIN_MS = 60_000;
const LOADING = "Loading the numbers…";
const LOADING_SAID_MS = 400;
const RETRY_MS = 2_000;

const page = byId("dashboard");
const view = /** @type {"distribution" | "evolution"} */ (page.dataset.view);
const embedded = page.dataset.embedded === "1";
/** @type {Distribution | Evolution | null} */
let answer = null;
let isFirst = true;
/** Whether the page shows something else than the address asks for. */
let isBehind = true;
/** @type {AbortController | undefined} */
let running;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let again;

/** @param {import("./state.js").Changes} changes */
function change(changes) {
  const after = changed(current(), changes);
  const before = current();
  if (query(after) === location.search) return;
  history.pushState(null, "", query(after) || location.pathname);
  if (answer && asked(after) === asked(before)) render();
  else void load();
}

/** @param {boolean} [quiet] whether nobody asked for it */
async function load(quiet = false) {
  clearTimeout(again);
  running?.abort();
  running = new AbortController();
  const {signal} = running;
  if (!quiet) page.setAttribute("aria-busy", "true");
  const slow = quiet ? 0 : setTimeout(() => notice(LOADING, false), LOADING_SAID_MS);
  try {
    if (!current().has("metric")) {
      const {metrics} = await ask("/api/v1/metrics?limit=1", signal);
      if (!metrics.length) throw new Refused("There is no metric with data yet. The first ones come some minutes after the first pings.", 503);
      history.replaceState(null, "", query(changed(current(), {metric: metrics[0].name})));
    }
    const before = answer?.data.version;
    // The page has begun to fetch the first answer already, by the address as it was.
    const path = isFirst && page.dataset.preloaded === "1" ? `/api/v1/${view}${location.search}` : `/api/v1/${view}${asked(current())}`;
    isFirst = false;
    const next = await ask(path, signal);
    if (signal.aborted) return;
    answer = next;
    if (!quiet || isBehind || next.data.version !== before) render();
    isBehind = false;
    again = setTimeout(() => load(true), LOOK_AGAIN_MS);
  } catch (error) {
    if (signal.aborted) return;
    refuse(error);
  } finally {
    clearTimeout(slow);
  }
  page.setAttribute("aria-busy", "false");
}

/** @param {unknown} error */
function refuse(error) {
  isBehind = true;
  const refused = error instanceof Refused ? error : new Refused(String(error), 500);
  const mayHelp = refused.status === 0 || refused.status === 503;
  if (!(mayHelp && answer)) byId("result").hidden = true;
  notice(
    refused.message,
    true,
    ...refused.suggestions.map((name) => element("button", {type: "button", class: "quiet", onclick: () => change({metric: name})}, name)),
  );
  if (mayHelp) again = setTimeout(() => load(true), RETRY_MS);
}

/**
 * @param {string} sentence
 * @param {boolean} bad
 * @param {...Node} more
 */
function notice(sentence, bad, ...more) {
  const shown = byId("notice");
  shown.replaceChildren(sentence, ...more);
  shown.classList.toggle("bad", bad);
  shown.classList.remove("loading");
  shown.hidden = !sentence;
}

function render() {
  if (!answer) return;
  const parameters = current();
  const {metric, data} = answer;
  document.title = `${metric.name} – ${view} · Telemetry Lake`;
  byId("metric-name").textContent = metric.name;
  byId("metric-description").textContent = metric.description || (embedded ? "" : "No description is known.");
  byId("metric-facts").textContent = facts();
  showFreshness(byId("freshness"), data.data_until, Number(page.dataset.staleHours), data.preliminary_date);
  for (const link of document.querySelectorAll("[data-keeps-selection]")) {
    link.setAttribute("href", `${link.getAttribute("data-keeps-selection")}${query(changed(parameters, {reference: null, cumulative: null}))}`);
  }
  notice(answer.reason?.sentence ?? "", false);
  byId("result").hidden = answer.reason !== null;
  if (!embedded) showFilters(answer, parameters, change);
  else byId("whole-page").setAttribute("href", `/${view}${query(parameters)}`);
  if (answer.reason) return;
  const cumulative = parameters.get("cumulative") === "1";
  byId("chart-title").textContent = view === "distribution" ? distributionTitle(/** @type {Distribution} */ (answer), cumulative) : evolutionTitle(/** @type {Evolution} */ (answer));
  draw();
  const own = view === "distribution" ? distributionNotes(/** @type {Distribution} */ (answer)) : evolutionNotes(/** @type {Evolution} */ (answer));
  byId("notes").replaceChildren(...[...own, ...notes()].map((note) => element("span", {}, note)));
  if (embedded) return;
  showToggles(parameters);
  showActions(parameters);
  const details = /** @type {HTMLDetailsElement} */ (byId("table-details"));
  details.open = parameters.get("table") === "1";
  if (details.open) fillTable();
}

function facts() {
  if (!answer) return "";
  const {metric, selection} = answer;
  return [
    kindOf(metric),
    selection.ping ? `in ${selection.ping} pings` : "",
    metric.first_date ? `seen from ${metric.first_date} to ${metric.last_date}` : "",
    metric.expires ? `expires ${metric.expires}` : "",
  ].filter(Boolean).join(" · ");
}

/** What holds for both views and has to be said: nothing is left out in silence. */
function notes() {
  if (!answer) return [];
  const {hidden, series_left_out, minimum_clients, definitions, definition, selection, chosen_here, data} = answer;
  const said = [];
  if (selection.channel.length > 1 && selection.compare !== "channel") said.push(`The channels ${selection.channel.join(" and ")} are added up.`);
  if (chosen_here.includes("channel")) said.push(`No channel is chosen: this is ${selection.channel.join(", ")}.`);
  if (definitions.length > 1) said.push(`The buckets have changed: shown are the ${definition === definitions[0].definition ? "newest" : "chosen"} of ${definitions.length}, and nothing of the others is in these numbers.`);
  for (const {name, clients, dates, minimum_clients: least} of hidden) {
    said.push(dates ? `${many(dates, "date")} of ${name} ${dates === 1 ? "is" : "are"} hidden: fewer than ${count(least)} client-days.` : `${name} is hidden: ${count(clients)} client-days, and fewer than ${count(least)} are not shown.`);
  }
  if (!hidden.length && minimum_clients > 0) said.push(`Less than ${count(minimum_clients)} client-days would be hidden.`);
  if (series_left_out) said.push(`${many(series_left_out, "more series").replace(/s$/, "")} with fewer pings ${series_left_out === 1 ? "is" : "are"} left out.`);
  if (selection.weight === "client") said.push("Client weights: each client of a day has a total weight of 1, however many samples it sent.");
  if (data.preliminary_date) said.push(`Pings of ${data.preliminary_date} are still coming in.`);
  return said;
}

function draw() {
  if (!answer || answer.reason) return;
  if (view === "distribution") showDistribution(/** @type {Distribution} */ (answer), current());
  else showEvolution(/** @type {Evolution} */ (answer), current(), change);
}

/** @param {URLSearchParams} parameters */
function showToggles(parameters) {
  if (!answer) return;
  const focused = document.activeElement?.id;
  const chosen = answer.selection.percentiles;
  /** @param {string} name @param {string} title @param {boolean} on */
  const toggle = (name, title, on) =>
    element("label", {}, element("input", {type: "checkbox", id: `toggle-${name}`, checked: on, onchange: (/** @type {Event} */ event) => change({[name]: /** @type {HTMLInputElement} */ (event.target).checked ? "1" : null})}), title);
  byId("toggles").replaceChildren(
    ...(answer.has_percentiles
      ? [element("fieldset", {class: "chips"}, element("legend", {}, "Percentiles"),
          ...PERCENTS.map((percent) =>
            element("label", {title: ordinal(percent)}, element("input", {
              type: "checkbox", id: `percentile-${percent}`, "aria-label": `${ordinal(percent)} percentile`, checked: chosen.includes(percent),
              onchange: (/** @type {Event} */ event) => {
                const isOn = /** @type {HTMLInputElement} */ (event.target).checked;
                const next = PERCENTS.filter((each) => (each === percent ? isOn : chosen.includes(each)));
                change({percentiles: next.length ? next.join(",") : "50"});
              },
            }), percent)))]
      : []),
    ...(view === "distribution"
      ? [toggle("cumulative", "Cumulative", parameters.get("cumulative") === "1"), toggle("trim", "Trim the ends", answer.selection.trim)]
      : []),
  );
  if (focused?.startsWith("toggle-") || focused?.startsWith("percentile-")) document.getElementById(focused)?.focus({preventScroll: true});
}

/** @param {URLSearchParams} parameters */
function showActions(parameters) {
  const api = `/api/v1/${view}`, address = asked(parameters);
  byId("actions").replaceChildren(
    element("a", {class: "button", id: "export-csv", href: `${api}.csv${address}`, download: true}, "CSV"),
    element("a", {class: "button", id: "export-json", href: `${api}.json${address}`, download: true}, "JSON"),
    element("button", {type: "button", id: "show-sql", onclick: () => showSql(`${api}.sql${address}`)}, "Show SQL"),
    element("button", {type: "button", id: "copy-link", onclick: () => dialog("Link to this page", "Everything that is chosen is in the address.", location.href)}, "Link"),
    element("button", {type: "button", id: "embed", onclick: () => dialog("Embed this chart", "The chart in a frame of another page; it stays current.", `<iframe src="${location.origin}/embed/${view}${query(parameters).replaceAll("&", "&amp;")}" width="900" height="640" loading="lazy" title="${answer?.metric.name ?? ""}"></iframe>`)}, "Embed"),
  );
}

/** @param {string} path */
async function showSql(path) {
  try {
    const sent = await fetch(path);
    const text = await sent.text();
    dialog("SQL for these numbers", "Over the table derived.histogram_aggregates. Save it as saved.sql and run: make query SQL=\"$(cat saved.sql)\"", text);
  } catch {
    dialog("SQL for these numbers", "The server does not answer. Try again in a moment.", "");
  }
}

/**
 * @param {string} title
 * @param {string} text
 * @param {string} content
 */
function dialog(title, text, content) {
  byId("dialog-title").textContent = title;
  byId("dialog-text").textContent = text;
  /** @type {HTMLTextAreaElement} */ (byId("dialog-content")).value = content;
  byId("dialog-copied").textContent = "";
  /** @type {HTMLDialogElement} */ (byId("dialog")).showModal();
}

function fillTable() {
  if (!answer || answer.reason) return;
  if (view === "distribution") distributionTable(/** @type {Distribution} */ (answer), byId("table"));
  else evolutionTable(/** @type {Evolution} */ (answer), byId("table"));
}

function begin() {
  const old = oldSelection(location.hash);
  if (old) history.replaceState(null, "", query(changed(new URLSearchParams(), old)));
  addEventListener("popstate", () => void load());
  addEventListener("hashchange", () => {
    const later = oldSelection(location.hash);
    if (later) {
      history.replaceState(null, "", query(changed(new URLSearchParams(), later)));
      void load();
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && answer) void load(true);
  });
  let width = byId("charts").clientWidth;
  new ResizeObserver(() => {
    const now = byId("charts").clientWidth;
    if (now && Math.abs(now - width) > 2) {
      width = now;
      draw();
    }
  }).observe(byId("main"));
  byId("dialog-close").addEventListener("click", () => /** @type {HTMLDialogElement} */ (byId("dialog")).close());
  byId("dialog-copy").addEventListener("click", async () => {
    const content = /** @type {HTMLTextAreaElement} */ (byId("dialog-content"));
    content.select();
    try {
      await navigator.clipboard.writeText(content.value);
      byId("dialog-copied").textContent = "Copied.";
    } catch {
      byId("dialog-copied").textContent = "Selected: copy it with the keyboard.";
    }
  });
  if (!embedded) {
    metricSearch((name) => change({metric: name, key: null, rest: null, ping: null, definition: null, versions: null, dates: null, reference: null}));
    closeFiltersOutside();
    const details = /** @type {HTMLDetailsElement} */ (byId("table-details"));
    details.addEventListener("toggle", () => {
      if (details.open) fillTable();
      if (details.open !== (current().get("table") === "1")) change({table: details.open ? "1" : null});
    });
  }
  void load();
}

begin();
