// The filters of an answer: each a button that opens a list of values with their pings.
import {ask} from "./api.js";
import {byId, element} from "./dom.js";
import {compact, count} from "./format.js";
import {asked} from "./state.js";

/** @typedef {import("./types").Answer} Answer */
/** @typedef {(changes: import("./state.js").Changes) => void} Change */

const TITLES = {
  channel: "Channel", application: "Application", os: "System", architecture: "Architecture", process: "Process",
};
export const COMPARED = {
  channel: "channel", version: "version", application: "application", os: "system", architecture: "architecture", process: "process",
};

/**
 * @param {Answer} answer
 * @param {URLSearchParams} parameters
 * @param {Change} change
 */
export function showFilters(answer, parameters, change) {
  const open = document.querySelector("#filters details[open], #settings details[open]")?.getAttribute("data-name");
  const focused = document.activeElement?.id;
  const selection = answer.selection;
  byId("filters").replaceChildren(
    ...(answer.metric.keyed ? [keys(answer, parameters, change)] : []),
    ...Object.entries(TITLES).map(([name, title]) =>
      values(name, title, answer.options[name] ?? [], selection[/** @type {"os"} */ (name)], answer.chosen_here.includes(name), change)),
    versions(answer, change),
    dates(answer, change),
    ...(answer.options.ping.length > 1 ? [pings(answer, change)] : []),
    ...(answer.definitions.length > 1 ? [definitions(answer, change)] : []),
  );
  byId("settings").replaceChildren(
    choice("compare", "Compare by", selection.compare ?? "", [["", "nothing"], ...Object.entries(COMPARED)], change),
    choice("by", "Dates are", selection.by, [["build", "of the build"], ["submission", "of submission"]], (changes) => change({...changes, dates: null, reference: null})),
    choice("weight", "Weight", selection.weight, [["samples", "every sample counts"], ["client", "every client counts the same"]], change),
    ...(parametersAreSet(parameters) ? [element("button", {type: "button", class: "quiet", id: "reset", onclick: () => change(nothing(parameters))}, "Reset filters")] : []),
  );
  if (open) document.querySelector(`details[data-name="${open}"]`)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus({preventScroll: true});
}

/** @param {URLSearchParams} parameters */
const parametersAreSet = (parameters) => [...parameters.keys()].some((name) => name !== "metric");

/** @param {URLSearchParams} parameters */
const nothing = (parameters) =>
  Object.fromEntries([...parameters.keys()].filter((name) => name !== "metric").map((name) => [name, null]));

/**
 * @param {string} name
 * @param {string} title
 * @param {string} state what is chosen, in words
 * @param {boolean} isSet
 * @param {...(Node | string)} body
 */
function popover(name, title, state, isSet, ...body) {
  return element(
    "details",
    {class: `filter${isSet ? " set" : ""}`, "data-name": name},
    element("summary", {id: `filter-${name}`}, element("span", {class: "filter-title"}, title), element("span", {class: "filter-state"}, state)),
    element("div", {class: "popover", role: "group", "aria-label": title}, ...body),
  );
}

/**
 * @param {string} name
 * @param {string} title
 * @param {import("./types").Option[]} options
 * @param {string[]} chosen
 * @param {boolean} byItself
 * @param {Change} change
 */
function values(name, title, options, chosen, byItself, change) {
  const known = new Set(options.map(({value}) => value));
  const all = [...options, ...chosen.filter((value) => !known.has(value)).map((value) => ({value, pings: 0}))];
  return popover(
    name, title, chosen.length ? chosen.join(", ") : "all", chosen.length > 0 && !byItself,
    ...all.map(({value, pings}, number) =>
      element("label", {class: "option"},
        element("input", {
          type: "checkbox", id: `filter-${name}-${number}`, checked: chosen.includes(value),
          onchange: (/** @type {Event} */ event) => {
            const isOn = /** @type {HTMLInputElement} */ (event.target).checked;
            change({[name]: isOn ? [...chosen, value] : chosen.filter((each) => each !== value)});
          },
        }),
        element("span", {class: "value"}, value),
        element("span", {class: "muted small"}, `${compact(pings)} pings`),
      )),
    ...(all.length ? [] : [element("p", {class: "muted small"}, "This metric has no values here.")]),
    ...(all.length > 1
      ? [element("div", {class: "popover-actions"},
          element("button", {type: "button", class: "quiet", id: `filter-${name}-all`, onclick: () => change({[name]: null})}, name === "channel" ? "The usual one" : "All"),
          ...(name === "channel" || all.length <= 12
            ? [element("button", {type: "button", class: "quiet", id: `filter-${name}-compare`, onclick: () => change({[name]: name === "channel" ? all.map(({value}) => value).slice(0, 12) : chosen, compare: name})}, "Compare them")]
            : []))]
      : []),
  );
}

/** @param {Answer} answer @param {Change} change */
function versions({options, selection}, change) {
  const known = options.version.map(({value}) => value).filter((value) => value !== "OTHER");
  const majors = [...new Set(known.map((value) => value.split(".")[0]))];
  const [first = "", last = first] = (selection.versions ?? "").split("..");
  const list = element("datalist", {id: "known-versions"}, ...[...majors, ...known].reverse().map((value) => element("option", {value})));
  const from = element("input", {id: "version-from", type: "text", list: "known-versions", value: first, size: 8, placeholder: majors[0] ?? "", autocomplete: "off"});
  const to = element("input", {id: "version-to", type: "text", list: "known-versions", value: last, size: 8, placeholder: majors.at(-1) ?? "", autocomplete: "off"});
  const apply = () => {
    const low = from.value.trim() || (to.value.trim() && (majors[0] ?? "")), high = to.value.trim() || (from.value.trim() && (majors.at(-1) ?? ""));
    change({versions: !low && !high ? null : low === high ? low : `${low}..${high}`});
  };
  return popover(
    "versions", "Versions", selection.versions ?? "all", selection.versions !== null,
    element("form", {class: "range", onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); apply(); }},
      element("label", {}, "From", from), element("label", {}, "to", to), list,
      element("button", {type: "submit", id: "version-apply"}, "Apply")),
    element("div", {class: "popover-actions"},
      ...majors.slice(-4).reverse().map((major) => element("button", {type: "button", class: "quiet", id: `version-${major}`, onclick: () => change({versions: major})}, major)),
      element("button", {type: "button", class: "quiet", id: "version-all", onclick: () => change({versions: null})}, "All")),
  );
}

/** @param {Answer} answer @param {Change} change */
function dates(answer, change) {
  const {selection} = answer;
  const [first = "", last = first] = (selection.dates ?? "").split("..");
  const limits = {min: answer.first_date ?? "", max: answer.last_date ?? ""};
  const from = element("input", {id: "date-from", type: "date", value: first, ...limits});
  const to = element("input", {id: "date-to", type: "date", value: last, ...limits});
  const apply = () => {
    const low = from.value || (to.value && (answer.first_date ?? to.value)), high = to.value || (from.value && (answer.last_date ?? from.value));
    change({dates: !low ? null : low > high ? `${high}..${low}` : `${low}..${high}`});
  };
  /** @param {number} days */
  const recent = (days) => {
    if (!answer.last_date) return;
    const begin = new Date(Date.parse(answer.last_date) - (days - 1) * 86_400_000).toISOString().slice(0, 10);
    change({dates: `${begin}..${answer.last_date}`});
  };
  return popover(
    "dates", "Dates", selection.dates ? selection.dates.replace("..", " – ") : "all", selection.dates !== null,
    element("form", {class: "range", onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); apply(); }},
      element("label", {}, "From", from), element("label", {}, "to", to), element("button", {type: "submit", id: "date-apply"}, "Apply")),
    element("div", {class: "popover-actions"},
      ...[7, 30, 90].map((days) => element("button", {type: "button", class: "quiet", id: `date-${days}`, onclick: () => recent(days)}, `Last ${days} days`)),
      element("button", {type: "button", class: "quiet", id: "date-all", onclick: () => change({dates: null})}, "All")),
  );
}

/** @param {Answer} answer @param {Change} change */
function pings({options, selection, chosen_here}, change) {
  return popover(
    "ping", "Ping", selection.ping ?? "", !chosen_here.includes("ping"),
    ...options.ping.map(({value, pings: number}, place) =>
      element("label", {class: "option"},
        element("input", {type: "radio", name: "ping", id: `filter-ping-${place}`, checked: value === selection.ping, onchange: () => change({ping: value})}),
        element("span", {class: "value"}, value), element("span", {class: "muted small"}, `${compact(number)} pings`))),
  );
}

/** @param {Answer} answer @param {Change} change */
function definitions({definitions: used, definition, selection}, change) {
  return popover(
    "definition", "Buckets", definition ?? "", selection.definition !== null,
    element("p", {class: "muted small"}, "The buckets of this metric have changed. What is in different buckets is never added up."),
    ...used.map((each, place) =>
      element("label", {class: "option"},
        element("input", {type: "radio", name: "definition", id: `filter-definition-${place}`, checked: each.definition === definition, onchange: () => change({definition: place ? each.definition : null})}),
        element("span", {class: "value"}, each.definition),
        element("span", {class: "muted small"}, `${each.first_date ?? "?"} to ${each.last_date ?? "?"}, ${compact(each.pings)} pings`))),
  );
}

/**
 * @param {Answer} answer
 * @param {URLSearchParams} parameters
 * @param {Change} change
 */
function keys(answer, parameters, change) {
  const {selection} = answer;
  const chosen = selection.key;
  const list = element("div", {class: "options"}, element("p", {class: "muted small"}, "Loading the keys…"));
  const find = element("input", {id: "key-search", type: "search", placeholder: "Find a key", "aria-label": "Find a key", autocomplete: "off"});
  /** @type {import("./types").Keys | undefined} */
  let known;
  const show = () => {
    if (!known) return;
    const wanted = find.value.trim().toLowerCase();
    const fitting = known.keys.filter(({key}) => key.toLowerCase().includes(wanted));
    list.replaceChildren(
      ...fitting.slice(0, 60).map(({key, pings: number}, place) =>
        element("label", {class: "option"},
          element("input", {
            type: "checkbox", id: `filter-key-${place}`, checked: chosen.includes(key),
            onchange: (/** @type {Event} */ event) => change({key: /** @type {HTMLInputElement} */ (event.target).checked ? [...chosen, key] : chosen.filter((each) => each !== key)}),
          }),
          element("span", {class: "value"}, key || "(empty)"), element("span", {class: "muted small"}, `${compact(number)} pings`))),
      ...(fitting.length > 60 ? [element("p", {class: "muted small"}, `${count(fitting.length - 60)} more: type a part of the key.`)] : []),
      ...(known.rest
        ? [element("label", {class: "option"},
            element("input", {type: "checkbox", id: "filter-key-rest", checked: selection.rest, onchange: (/** @type {Event} */ event) => change({rest: /** @type {HTMLInputElement} */ (event.target).checked ? "1" : null, key: chosen})}),
            element("span", {class: "value"}, "other keys"),
            element("span", {class: "muted small"}, `up to ${count(known.rest.keys)} rare keys a day, added up; ${compact(known.rest.pings)} pings`))]
        : []),
    );
  };
  find.addEventListener("input", show);
  const filter = popover(
    "key", "Keys", [...chosen.map((key) => key || "(empty)"), ...(selection.rest ? ["other keys"] : [])].join(", ") || "none", !answer.chosen_here.includes("key"),
    find, list,
    element("div", {class: "popover-actions"}, element("button", {type: "button", class: "quiet", id: "key-usual", onclick: () => change({key: null, rest: null})}, "The most common ones")),
  );
  filter.addEventListener("toggle", async () => {
    if (!filter.open || known) return;
    try {
      known = await ask(`/api/v1/keys${asked(parameters)}`);
      show();
    } catch (error) {
      list.replaceChildren(element("p", {class: "small"}, error instanceof Error ? error.message : String(error)));
    }
  });
  return filter;
}

/**
 * @param {string} name
 * @param {string} title
 * @param {string} value
 * @param {[string, string][]} options
 * @param {Change} change
 */
function choice(name, title, value, options, change) {
  return element("label", {class: "choice"}, element("span", {}, title),
    element("select", {id: `choose-${name}`, onchange: (/** @type {Event} */ event) => change({[name]: /** @type {HTMLSelectElement} */ (event.target).value})},
      ...options.map(([option, words]) => element("option", {value: option, selected: option === value}, words))));
}

/** Close an open list when the focus or a click goes elsewhere, or by Escape. */
export function closeFiltersOutside() {
  /** @param {EventTarget | null} target */
  const closeOthers = (target) => {
    for (const each of document.querySelectorAll("details.filter[open]")) {
      if (!(target instanceof Node) || !each.contains(target)) each.removeAttribute("open");
    }
  };
  document.addEventListener("pointerdown", (event) => closeOthers(event.target));
  document.addEventListener("focusin", (event) => closeOthers(event.target));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const open = document.querySelector("details.filter[open]");
    if (!open) return;
    open.removeAttribute("open");
    /** @type {HTMLElement | null} */ (open.querySelector("summary"))?.focus();
  });
}
