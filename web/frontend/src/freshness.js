// Until when the data goes, in colour when that is long ago.
const HOUR_MS = 3_600_000;

/**
 * @param {HTMLElement} element
 * @param {string | null} until
 * @param {number} staleHours
 * @param {string | null} [preliminary]
 */
export function showFreshness(element, until, staleHours, preliminary = null) {
  if (!until) return;
  const hours = (Date.now() - Date.parse(until)) / HOUR_MS;
  const isStale = hours > staleHours;
  element.classList.toggle("stale", isStale);
  const age = hours < 1 ? "less than an hour old" : hours < 48 ? `${Math.floor(hours)} hours old` : `${Math.floor(hours / 24)} days old`;
  element.textContent = `Data until ${until.slice(0, 16).replace("T", " ")} UTC${isStale ? ` – ${age}` : ""}${preliminary && !isStale ? `, ${preliminary} still coming in` : ""}`;
  element.title = age;
}
