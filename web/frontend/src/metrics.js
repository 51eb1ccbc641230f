import {showFreshness} from "./freshness.js";
const shown = document.getElementById("freshness");
if (shown?.dataset.until) showFreshness(shown, shown.dataset.until, Number(shown.dataset.staleHours));
