// Keep the page as it is on the server: ask for the same address again, and change what differs. One request at a time; none
// while the page is hidden, while somebody types, or when it was switched off.
import { morph } from "./morph.js";

const EVERY_MS = 2000, GIVES_UP_MS = 10000;
const main = document.querySelector("main[data-live]");
const shown = document.getElementById("live");
let etag = "", isOn = sessionStorage.getItem("live") !== "off";

/** @param {"on" | "off" | "away"} state */
function tell(state) {
  if (!shown) return;
  shown.hidden = false;
  shown.dataset.state = state;
  button.textContent = shown.dataset[state] || "";
}

const button = document.createElement("button");
button.type = "button";
button.addEventListener("click", () => {
  isOn = !isOn;
  sessionStorage.setItem("live", isOn ? "on" : "off");
  tell(isOn ? "on" : "off");
});
if (shown) shown.append(button);
tell(isOn ? "on" : "off");

async function look() {
  const isTyping = document.activeElement instanceof HTMLElement && document.activeElement.matches("main input, main select");
  if (!isOn || document.hidden || isTyping || !main) return;
  const address = new URL(location.href);
  for (const name of ["did", "n", "lang", "theme"]) address.searchParams.delete(name);
  try {
    const headers = etag ? { "If-None-Match": etag } : {};
    const answer = await fetch(address, { headers, cache: "no-store", redirect: "error", signal: AbortSignal.timeout(GIVES_UP_MS) });
    if (answer.status !== 304) {
      const text = await answer.text();
      const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("main");
      if (fresh && (answer.ok || answer.status === 503 || answer.status === 404)) {
        const told = main.querySelector(".told");
        if (told && answer.ok) fresh.prepend(told.cloneNode(true));
        morph(main, fresh);
        etag = answer.headers.get("ETag") || "";
      }
    }
    tell(!isOn ? "off" : answer.status === 503 ? "away" : "on");
  } catch {
    tell(isOn ? "away" : "off");
  }
}

async function run() {
  for (;;) {
    await new Promise((go) => setTimeout(go, EVERY_MS));
    await look();
  }
}

document.addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLElement && event.target.matches("input, select, textarea");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const field = document.querySelector(".find input");
    if (field instanceof HTMLInputElement) { event.preventDefault(); field.focus(); }
  }
});
run();
