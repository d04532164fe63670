// Keys: `/` goes to the search, `?` lists the keys, `g` and a letter goes to a page. None while somebody types.
const AFTER_G_MS = 1500;
const help = document.getElementById("keys");
let gAt = 0;

document.addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLElement && event.target.matches("input, select, textarea");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const isAfterG = event.timeStamp - gAt < AFTER_G_MS;
  gAt = event.key === "g" ? event.timeStamp : 0;
  const page = isAfterG && /^[a-z]$/.test(event.key) ? document.querySelector(`nav a[data-key=${event.key}]`) : null;
  if (page instanceof HTMLAnchorElement) page.click();
  else if (event.key === "/") (document.getElementById("filter") || document.querySelector(".find input"))?.focus();
  else if (event.key === "?" && help instanceof HTMLDialogElement) help.showModal();
  else return;
  event.preventDefault();
});
