// Instants on this machine's clock: the server writes UTC, which stays in the tooltip with how long ago that was.

const language = document.documentElement.lang;
const clock = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "medium" }); // 2026-11-29 16:50:01
const hour = new Intl.DateTimeFormat("sv-SE", { timeStyle: "short" });
const day = new Intl.DateTimeFormat(language, { day: "numeric", month: "short" });
const ago = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
/** @type {[Intl.RelativeTimeFormatUnit, number][]} */
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];

/** @param {number} seconds */
function relative(seconds) {
  const [unit, size] = UNITS.find(([, each]) => Math.abs(seconds) >= each) || UNITS[3];
  return ago.format(Math.round(seconds / size), unit);
}

/** @param {ParentNode} root */
export function localize(root) {
  for (const one of root.querySelectorAll("time[datetime]")) {
    const at = new Date(one.getAttribute("datetime") || "");
    if (Number.isNaN(at.valueOf())) continue;
    const utc = at.toISOString().slice(0, 19).replace("T", " ") + " UTC";
    one.setAttribute("title", `${utc} · ${relative((at.valueOf() - Date.now()) / 1000)}`);
    if (one.matches(".short")) one.textContent = Date.now() - at.valueOf() > 90000000 ? day.format(at) : hour.format(at);
    else one.textContent = clock.format(at);
  }
}
