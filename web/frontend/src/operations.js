// Keeps the operations page up to date; without it, the page is current when it is loaded.
import {byId} from "./dom.js";

const STILL_TRIED_MS = 10_000;

/** @param {Document} page */
function show(page) {
  const place = byId("operations"), fresh = page.getElementById("operations");
  const verdict = byId("verdict"), said = page.getElementById("verdict");
  if (!fresh || !said) return location.reload();
  const open = new Set([...place.querySelectorAll("details[open]")].map(({id}) => id));
  for (const details of fresh.querySelectorAll("details")) details.open = open.has(details.id);
  const focused = document.activeElement, scrolled = [...place.querySelectorAll(".scroll")].map(({scrollLeft, scrollTop}) => [scrollLeft, scrollTop]);
  const places = [...place.querySelectorAll("a, summary, [tabindex]")];
  const index = focused ? places.indexOf(focused) : -1, path = pathOf(focused);
  place.replaceChildren(...fresh.childNodes);
  place.querySelectorAll(".scroll").forEach((element, number) => {
    const [left, top] = scrolled[number] ?? [0, 0];
    element.scrollTo(left, top);
  });
  if (index >= 0) {
    const again = [...place.querySelectorAll("a, summary, [tabindex]")].filter((element) => pathOf(element) === path);
    const first = again.find((element) => element.getClientRects().length) ?? again[0];
    if (first instanceof HTMLElement || first instanceof SVGElement) first.focus({preventScroll: true});
  }
  // A screen reader says it when it changes, and not every time.
  if (verdict.textContent !== said.textContent) verdict.textContent = said.textContent;
  verdict.className = said.className;
}

/** What is the same of an element in two answers of the server. @param {Element | null} element */
const pathOf = (element) => element && `${element.tagName} ${element.getAttribute("href") ?? element.closest("[id]")?.id ?? ""} ${element.closest("svg")?.getAttribute("class") ?? ""}`;

async function follow() {
  const pause = Number(byId("operations").dataset.poll) * 1000;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (document.hidden) continue;
    try {
      const answer = await fetch(location.pathname + location.search, {signal: AbortSignal.timeout(STILL_TRIED_MS)});
      // The session is over: the whole page leads to the log-in.
      if (answer.redirected) return location.reload();
      if (!answer.ok) throw new Error(`it answers ${answer.status}`);
      show(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch (error) {
      const verdict = byId("verdict"), reason = error instanceof Error ? error.message : String(error);
      verdict.textContent = `This page is not up to date: the server of the pages does not answer (${reason}).`;
      verdict.className = "notice bad";
    }
  }
}

void follow();
