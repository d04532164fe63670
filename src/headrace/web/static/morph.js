// Make `old` like `fresh`, changing no more than what differs, and nothing that a person holds: what has the focus, what was
// typed or opened.

/** @param {Element} old @param {Element} fresh */
export function morph(old, fresh) {
  attributes(old, fresh);
  children(old, fresh);
}

/** @param {Element} old @param {Element} fresh */
function attributes(old, fresh) {
  const isHeld = old.matches("details, dialog");
  for (const { name, value } of [...fresh.attributes]) {
    if (!(isHeld && name === "open") && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!(isHeld && name === "open") && name !== "data-done" && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
}

/** @param {Element} old @param {Element} fresh */
function children(old, fresh) {
  /** @type {ChildNode | null} */
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const found = match(old, at, wanted);
    if (!found) {
      old.insertBefore(wanted.cloneNode(true), at);
      continue;
    }
    if (found !== at) old.insertBefore(found, at);
    else at = at && at.nextSibling;
    if (found instanceof Element && wanted instanceof Element) {
      if (!found.matches("input, select, textarea")) morph(found, wanted);
    } else if (found.nodeValue !== wanted.nodeValue) {
      found.nodeValue = wanted.nodeValue;
    }
  }
  while (at) {
    const next = at.nextSibling;
    if (!(at instanceof Element && at.contains(document.activeElement))) at.remove();
    at = next;
  }
}

/** @param {Element} old @param {ChildNode | null} at @param {Node} wanted */
function match(old, at, wanted) {
  if (wanted instanceof Element && wanted.id) {
    for (let one = at; one; one = one.nextSibling) if (one instanceof Element && one.id === wanted.id) return one;
    return null;
  }
  if (at && at.nodeType === wanted.nodeType && at.nodeName === wanted.nodeName && !(at instanceof Element && at.id)) return at;
  return null;
}
