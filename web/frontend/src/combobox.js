// The search for a metric: a combobox with a list, as the ARIA practices describe it.
import {ask} from "./api.js";
import {byId, element} from "./dom.js";
import {count, kindOf} from "./format.js";

const PAUSE_MS = 120;

/** @param {(name: string) => void} choose */
export function metricSearch(choose) {
  const input = /** @type {HTMLInputElement} */ (byId("metric-search"));
  const list = byId("metric-results");
  /** @type {import("./types").Metric[]} */
  let found = [];
  let active = -1;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let pause;
  /** @type {AbortController | undefined} */
  let running;

  function close() {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
    active = -1;
  }

  /** @param {number} place */
  function activate(place) {
    const options = [...list.querySelectorAll("[role=option]")];
    if (!options.length) return;
    active = (place + options.length) % options.length;
    options.forEach((option, number) => option.setAttribute("aria-selected", String(number === active)));
    input.setAttribute("aria-activedescendant", options[active].id);
    options[active].scrollIntoView({block: "nearest"});
  }

  /** @param {number} place */
  function take(place) {
    const metric = found[place];
    if (!metric) return;
    input.value = "";
    close();
    choose(metric.name);
  }

  function show() {
    list.replaceChildren(
      ...found.map((metric, number) =>
        element(
          "li",
          {
            role: "option", id: `metric-result-${number}`, "aria-selected": "false",
            onmousedown: (/** @type {Event} */ event) => event.preventDefault(),
            onclick: () => take(number),
          },
          element("strong", {}, metric.name),
          element("span", {class: "muted small"}, `${kindOf(metric)} · ${count(metric.pings)} pings`),
          element("span", {class: "about"}, metric.description),
        ),
      ),
    );
    if (!found.length) {
      list.append(element("li", {class: "nothing", role: "option", "aria-disabled": "true", "aria-selected": "false"}, "No metric is like this."));
    }
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    active = -1;
    if (found.length && input.value.trim()) activate(0);
  }

  async function search() {
    running?.abort();
    running = new AbortController();
    const {signal} = running;
    try {
      const answer = await ask(`/api/v1/metrics?${new URLSearchParams({search: input.value})}`, signal);
      if (signal.aborted || document.activeElement !== input) return;
      found = answer.metrics;
      show();
    } catch {
      // The result area says what is wrong with the server.
      if (!signal.aborted) close();
    }
  }

  input.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(search, PAUSE_MS);
  });
  input.addEventListener("focus", search);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", async (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) await search();
      else activate(active + (event.key === "ArrowDown" ? 1 : -1));
    } else if (event.key === "Enter") {
      event.preventDefault();
      clearTimeout(pause);
      if (active < 0) await search();
      take(Math.max(active, 0));
    } else if (event.key === "Escape") {
      if (list.hidden) input.value = "";
      close();
    }
  });
}
