// The live parts of the analysis service; its pages work without them.
import {ask} from "./api.js";
import {byId, element} from "./dom.js";

const RUN_PAUSE_MS = 2_000;
const TYPING_PAUSE_MS = 250;
const COUNTING_PAUSE_MS = 600;

/** @param {number} seconds */
function duration(seconds) {
  const whole = Math.floor(seconds);
  if (whole >= 3600) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return whole >= 60 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${whole} s`;
}

/** @param {number | null} value */
const number = (value) => (value === null ? "–" : value.toLocaleString("en"));

/** @param {any} run */
function progressText({progress, state}) {
  if (!progress) return state === "queued" ? "It waits for its turn." : "It has not begun to read yet.";
  const parts = [`${progress.phase[0].toUpperCase()}${progress.phase.slice(1)}: ${number(progress.records)}`];
  if (progress.records_total) parts.push(` of ${number(progress.records_total)}`);
  parts.push(" records");
  if (progress.records_per_second) parts.push(`, ${number(Math.round(progress.records_per_second))} a second`);
  if (progress.seconds_left !== null) parts.push(`, ${duration(progress.seconds_left)} left`);
  return parts.join("");
}

/** @param {HTMLElement} page */
async function follow(page) {
  const log = byId("run-log"), state = byId("run-state").firstElementChild;
  const bar = /** @type {HTMLProgressElement} */ (byId("run-bar"));
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, RUN_PAUSE_MS));
    let run;
    try {
      run = await ask(`/api/v1/analyses/runs/${encodeURIComponent(page.dataset.run ?? "")}`);
    } catch (error) {
      byId("run-progress").textContent = error instanceof Error ? error.message : String(error);
      continue;
    }
    // The whole page has the result, and what can be done with a run that is over.
    if (run.is_over) return location.reload();
    if (state && state.textContent !== run.state) {
      state.textContent = run.state;
      state.className = `state state-${run.state.replaceAll(" ", "-")}`;
    }
    byId("run-progress").textContent = progressText(run);
    bar.value = run.progress?.records_total ? (100 * run.progress.records) / run.progress.records_total : 0;
    byId("run-queue").textContent = duration(run.queue_seconds);
    byId("run-time").textContent = duration(run.run_seconds);
    byId("run-records").textContent = number(run.records);
    if (run.log && log.textContent !== run.log) {
      const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
      log.textContent = run.log;
      if (isAtEnd) log.scrollTop = log.scrollHeight;
    }
  }
}

/** @param {HTMLFormElement} form */
function checkName(form) {
  const name = form.elements.namedItem("name");
  if (!(name instanceof HTMLInputElement)) return;
  const sentence = byId("name-check");
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let pause;
  name.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(async () => {
      const asked = name.value.trim();
      if (!asked) return void (sentence.textContent = "");
      try {
        const answer = await ask(`/api/v1/analyses/names/${encodeURIComponent(asked)}`);
        if (name.value.trim() !== asked) return;
        sentence.textContent = answer.sentence;
        sentence.classList.toggle("problem", !answer.free);
      } catch {
        sentence.textContent = "";
      }
    }, TYPING_PAUSE_MS);
  });
}

/** A tab in the editor is an indentation; Escape, then Tab leaves it. @param {HTMLTextAreaElement} editor */
function indent(editor) {
  let leaves = false;
  editor.addEventListener("keydown", (event) => {
    if (event.key === "Tab" && !event.shiftKey && !leaves) {
      event.preventDefault();
      editor.setRangeText("    ", editor.selectionStart, editor.selectionEnd, "end");
    }
    leaves = event.key === "Escape";
  });
}

/** Shows what came of a script beside it, without losing the place in the editor. @param {HTMLFormElement} form */
function tryBeside(form) {
  const button = /** @type {HTMLButtonElement} */ (byId("try-it")), place = byId("trial");
  button.addEventListener("click", async (event) => {
    event.preventDefault();
    button.disabled = true;
    place.replaceChildren(element("p", {class: "muted small"}, "It is being tried …"));
    try {
      const answer = await fetch(button.formAction, {method: "POST", body: new FormData(form)});
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const problems = [...page.querySelectorAll("#problem, .problem")].map((problem) => problem.textContent ?? "");
      const outcome = page.getElementById("trial");
      place.replaceChildren(...(problems.length || !outcome ? [element("pre", {class: "trial-error"}, problems.join("\n") || "The server could not try it.")] : outcome.childNodes));
    } catch {
      place.replaceChildren(element("p", {class: "problem"}, "The server does not answer."));
    }
    button.disabled = false;
  });
}

/** Counts the pings of a filter while it is written; the place in the form stays. @param {HTMLFormElement} form */
function countBeside(form) {
  const button = /** @type {HTMLButtonElement} */ (byId("count")), sentence = byId("matching"), filter = byId("filter");
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let pause;
  let asked = 0;
  async function count() {
    const question = ++asked;
    sentence.textContent = "They are being counted …";
    try {
      const answer = await fetch(button.formAction, {method: "POST", body: new FormData(form)});
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (question !== asked) return;
      const problems = [...page.querySelectorAll("#problem, .problem")].map((problem) => problem.textContent ?? "");
      sentence.textContent = problems.join(" ") || (page.getElementById("matching")?.textContent ?? "");
      if (problems.length) return;
      for (const place of filter.querySelectorAll("[data-values]")) {
        const column = /** @type {HTMLElement} */ (place).dataset.values ?? "";
        const values = page.querySelector(`[data-values="${CSS.escape(column)}"]`);
        if (values) place.replaceChildren(...values.childNodes);
      }
    } catch {
      if (question === asked) sentence.textContent = "The server does not answer.";
    }
  }
  const soon = () => {
    clearTimeout(pause);
    pause = setTimeout(count, COUNTING_PAUSE_MS);
  };
  button.addEventListener("click", (event) => {
    event.preventDefault();
    void count();
  });
  filter.addEventListener("input", soon);
  for (const name of ["request.dates", "request.sample"]) byId(name).addEventListener("change", soon);
  filter.addEventListener("click", (event) => {
    const value = event.target instanceof Element ? event.target.closest("button.value") : null;
    if (!(value instanceof HTMLButtonElement)) return;
    event.preventDefault();
    const [column, ...rest] = value.value.split("="), chosen = rest.join("=");
    const field = /** @type {HTMLInputElement} */ (byId(`filter.${column}`));
    const values = field.value.split(",").map((each) => each.trim()).filter((each) => each && !each.includes(".."));
    field.value = (values.includes(chosen) ? values.filter((each) => each !== chosen) : [...values, chosen]).join(", ");
    void count();
  });
}

const run = document.getElementById("run");
if (run?.dataset.over === "0") void follow(run);
const form = document.getElementById("job-form");
if (form instanceof HTMLFormElement) {
  if (form.dataset.new === "1") checkName(form);
  tryBeside(form);
  countBeside(form);
  const editor = document.getElementById("script");
  if (editor instanceof HTMLTextAreaElement) indent(editor);
}
