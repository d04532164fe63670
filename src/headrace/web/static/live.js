// Keep the page as it is on the server: ask for the same address again, and change what differs. One request at a time; none
// while the page is hidden, while somebody types, or when it was switched off. What does not answer is asked again by itself.
import "./jobs.js";
import "./keys.js";
import { morph } from "./morph.js";
import { localize } from "./time.js";

const INTERVALS_S = [1, 2, 5, 15, 60], USUAL_S = 2, AWAY_S = 3, GIVES_UP_MS = 10000;
const main = document.querySelector("main[data-live]");
const shown = document.getElementById("live");
const state = document.createElement("span");
const choice = document.createElement("select");
let everyS = Number(localStorage.getItem("hr-live") ?? USUAL_S) || 0; // 0: paused
let etag = "", isAway = false;
/** @type {() => void} */
let wake = () => {};

function tell() {
  const word = isAway ? "away" : everyS ? "on" : "off";
  if (!shown || shown.dataset.state === word) return;
  shown.dataset.state = word;
  state.textContent = shown.dataset[word] || "";
}

if (shown) {
  state.setAttribute("role", "status");
  choice.setAttribute("aria-label", shown.dataset.label || "");
  for (const seconds of [...INTERVALS_S, 0]) {
    choice.add(new Option(seconds ? `${seconds} s` : shown.dataset.off, String(seconds), false, seconds === everyS));
  }
  choice.addEventListener("change", () => {
    everyS = Number(choice.value);
    localStorage.setItem("hr-live", choice.value);
    tell();
    wake();
  });
  shown.append(state, choice);
  shown.hidden = false;
}

async function look() {
  const isTyping = document.activeElement instanceof HTMLElement && document.activeElement.matches("main input, main select");
  if (document.hidden || isTyping || !main) return;
  const address = new URL(location.href);
  for (const name of ["did", "n", "lang", "theme"]) address.searchParams.delete(name);
  try {
    const headers = etag ? { "If-None-Match": etag } : {};
    const answer = await fetch(address, { headers, cache: "no-store", redirect: "error", signal: AbortSignal.timeout(GIVES_UP_MS) });
    if (answer.status !== 304) show(answer, new DOMParser().parseFromString(await answer.text(), "text/html"));
    isAway = answer.status === 503;
  } catch {
    isAway = true;
  }
  tell();
}

/** @param {Response} answer @param {Document} page */
function show(answer, page) {
  const fresh = page.querySelector("main");
  if (!main || !fresh || !(answer.ok || answer.status === 503 || answer.status === 404)) return;
  const told = main.querySelector(".told");
  if (told && answer.ok) fresh.prepend(told.cloneNode(true));
  morph(main, fresh);
  const [totals, freshTotals] = [document.getElementById("totals"), page.getElementById("totals")];
  if (totals && freshTotals) morph(totals, freshTotals);
  localize(document);
  etag = answer.headers.get("ETag") || "";
}

async function run() {
  for (;;) {
    await new Promise((go) => {
      wake = () => go(undefined);
      const seconds = isAway ? Math.min(everyS, AWAY_S) : everyS;
      if (everyS) setTimeout(go, seconds * 1000);
    });
    if (everyS) await look();
  }
}

document.addEventListener("visibilitychange", () => wake());
tell();
localize(document);
run();
