// Tells the tracker of this page view. A beacon outlives the page, and does not hold it up.
(() => {
  const home = new URL(".", document.currentScript.src);
  let visitor = localStorage.getItem("visitor");
  if (!visitor) localStorage.setItem("visitor", (visitor = crypto.randomUUID()));
  const view = { page: location.pathname, visitor, referrer: document.referrer, event: crypto.randomUUID() };
  navigator.sendBeacon(new URL("t", home), JSON.stringify(view));
})();
