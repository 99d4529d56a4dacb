// Comfort only: every page works without it, but for the pictures of PDFs (there is a link) and the refreshing.
"use strict";

const LIVE_MILLISECONDS = 2000;

async function fetchPart(address) {
  const answer = await fetch(address, { headers: { Accept: "text/html" }, credentials: "same-origin" });
  if (!answer.ok) throw new Error(String(answer.status));
  return answer.text();
}

// The picture of a page of a PDF, with its marks, and the buttons to turn over.
async function loadPart(place, address) {
  try {
    place.innerHTML = await fetchPart(address);
  } catch (error) {
    place.textContent = "… " + error.message;
    return;
  }
  for (const button of place.querySelectorAll("[data-to]"))
    button.addEventListener("click", () => loadPart(place, button.dataset.to));
  for (const mark of place.querySelectorAll("rect[data-field]"))
    mark.addEventListener("click", () => emphasise(mark.dataset.field, true));
}

// A field and its mark on the page belong together.
function emphasise(field, scroll) {
  for (const part of document.querySelectorAll("[data-field]")) {
    const mine = part.dataset.field === field;
    part.classList.toggle("chosen", mine);
    if (mine && scroll && part.tagName === "TR") part.scrollIntoView({ block: "nearest" });
  }
}

// An execution at work: the part that changes, until it changes no more.
function keepAlive() {
  const place = document.getElementById("live");
  const alive = place && place.querySelector("[data-live]");
  if (!alive) return;
  setTimeout(async () => {
    try {
      if (!document.hidden) place.innerHTML = await fetchPart(alive.dataset.live);
    } catch {
      // the server may be starting anew: it is asked again
    }
    keepAlive();
  }, LIVE_MILLISECONDS);
}

for (const place of document.querySelectorAll("[data-load]")) loadPart(place, place.dataset.load);
for (const row of document.querySelectorAll("tr[data-field]")) {
  row.addEventListener("mouseenter", () => emphasise(row.dataset.field, false));
  row.addEventListener("click", () => emphasise(row.dataset.field, false));
}
keepAlive();

// The link of a mail: its token stands behind #, goes into the form, and leaves the address bar and the history.
const form = document.querySelector("form[data-link]");
if (form && location.hash.length > 1) {
  form.elements.token.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname + location.search);
  form.requestSubmit();
}
