// One pointer for charts: by mouse, by finger, and by the arrow keys when a chart has the focus.

/**
 * @param {SVGSVGElement | HTMLElement} target
 * @param {object} act
 * @param {(x: number) => number} act.placeAt the place at a distance from the left, in pixels
 * @param {number} act.places
 * @param {(place: number | null, byKey: boolean) => void} act.show
 * @param {(place: number) => void} [act.choose] by a click or by Enter
 */
export function pointer(target, {placeAt, places, show, choose}) {
  /** @type {number | null} */
  let now = null;
  /** @param {number | null} place @param {boolean} byKey */
  const move = (place, byKey) => {
    if (!places) return;
    now = place === null ? null : Math.max(0, Math.min(places - 1, place));
    show(now, byKey);
  };
  /** @param {PointerEvent} event */
  const at = (event) => placeAt(event.clientX - target.getBoundingClientRect().left);
  target.addEventListener("pointermove", (event) => move(at(/** @type {PointerEvent} */ (event)), false));
  target.addEventListener("pointerleave", () => move(null, false));
  target.addEventListener("click", (event) => choose?.(Math.max(0, Math.min(places - 1, at(/** @type {PointerEvent} */ (event))))));
  target.addEventListener("blur", () => move(null, true));
  target.addEventListener("keydown", (event) => {
    const {key} = /** @type {KeyboardEvent} */ (event);
    if (key === "ArrowRight") move(now === null ? 0 : now + 1, true);
    else if (key === "ArrowLeft") move(now === null ? places - 1 : now - 1, true);
    else if (key === "Home") move(0, true);
    else if (key === "End") move(places - 1, true);
    else if (key === "Escape") move(null, true);
    else if (key === "Enter" && now !== null) choose?.(now);
    else return;
    event.preventDefault();
  });
}
