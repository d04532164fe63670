// What the pages about jobs do beyond plain forms: copy, tick a whole page, suggest a filter's words, go on with an action on many.
import { morph } from "./morph.js";
import { localize } from "./time.js";

document.documentElement.dataset.script = ""; // shows what needs it

document.addEventListener("click", async (event) => {
  const button = event.target instanceof HTMLElement ? event.target.closest("[data-copy]") : null;
  if (!(button instanceof HTMLElement)) return;
  const text = document.getElementById(button.dataset.copy || "")?.textContent || "";
  try {
    await navigator.clipboard.writeText(text);
  } catch { // only pages over HTTPS may write to it
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  button.dataset.done = "";
});

document.addEventListener("change", (event) => {
  const all = event.target;
  if (!(all instanceof HTMLInputElement) || !all.matches("[data-tick-all]")) return;
  for (const one of document.querySelectorAll("#ticks [name=job]")) if (one instanceof HTMLInputElement) one.checked = all.checked;
});

// A filter has several words: the browser's own list would replace them all, so ours completes the one under the cursor.
const field = document.getElementById("filter"), list = document.getElementById("words");
if (field instanceof HTMLInputElement && list) {
  const words = [...list.querySelectorAll("option")].map((option) => option.value);
  field.removeAttribute("list");
  const box = document.createElement("ul");
  box.id = "suggested";
  box.className = "suggested";
  box.setAttribute("role", "listbox");
  box.hidden = true;
  field.after(box);
  for (const [name, value] of [["role", "combobox"], ["aria-controls", box.id], ["aria-expanded", "false"], ["aria-autocomplete", "list"]]) {
    field.setAttribute(name, value);
  }
  let at = -1;

  const under = () => {
    const end = field.selectionStart ?? field.value.length;
    return { start: field.value.lastIndexOf(" ", end - 1) + 1, end };
  };
  const close = () => { box.hidden = true; at = -1; field.setAttribute("aria-expanded", "false"); field.removeAttribute("aria-activedescendant"); };
  /** @param {string} word */
  const take = (word) => {
    const { start, end } = under();
    const rest = field.value.slice(end), tail = word.endsWith(":") || word.endsWith(".") ? "" : " ";
    field.value = field.value.slice(0, start) + word + tail + rest.trimStart();
    field.selectionStart = field.selectionEnd = start + word.length + tail.length;
    field.focus();
    if (tail) close(); else suggest();
  };
  const suggest = () => {
    const { start, end } = under(), typed = field.value.slice(start, end).toLowerCase();
    const found = words.filter((word) => word.toLowerCase() !== typed && (typed.includes(":") || typed === "" ? word.toLowerCase().startsWith(typed) : word.toLowerCase().includes(typed)));
    const shown = found.filter((word) => typed || /[:.]$/.test(word)).slice(0, 12);
    box.replaceChildren(...shown.map((word, n) => {
      const item = document.createElement("li");
      item.id = `suggested-${n}`;
      item.setAttribute("role", "option");
      item.textContent = word;
      item.addEventListener("mousedown", (event) => { event.preventDefault(); take(word); });
      return item;
    }));
    at = -1;
    box.hidden = !shown.length;
    field.setAttribute("aria-expanded", String(!!shown.length));
  };
  field.addEventListener("input", suggest);
  field.addEventListener("focus", suggest);
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    const items = [...box.children], step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (event.key === "Escape") close();
    else if (box.hidden) return;
    else if (step && items.length) {
      at = (at + step + items.length) % items.length;
      items.forEach((item, n) => item.setAttribute("aria-selected", String(n === at)));
      field.setAttribute("aria-activedescendant", items[at].id);
    } else if (event.key === "Enter" && at >= 0) take(items[at].textContent || "");
    else return;
    event.preventDefault();
  });
}

// An action on all that match, step by step until somebody must be asked, or it is over.
async function goOn() {
  const main = document.querySelector("main");
  for (;;) {
    const form = document.querySelector("form[data-go-on]");
    if (!(form instanceof HTMLFormElement) || !main) return;
    const body = new URLSearchParams();
    for (const [name, value] of new FormData(form)) body.append(name, String(value));
    const answer = await fetch(form.action, { method: "POST", body });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
    if (!fresh) return;
    morph(main, fresh);
    localize(main);
  }
}
goOn();
