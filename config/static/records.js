// Lists of records: ticks that outlive the live view, boxes that suggest, IDs that are copied, keys.

import { copy } from "./clipboard.js";

const ticked = new Set();
let last = null;

const boxes = () => [...document.querySelectorAll("[data-records] .tick")];

// --- ticks ---

// A page has all of it, or nothing to tick.
const bar = document.getElementById("bulk");

function count() {
  if (!bar) return;
  const shown = boxes();
  for (const box of shown) box.closest("tr").toggleAttribute("data-ticked", box.checked);
  const chosen = shown.filter((box) => box.checked).length;
  document.getElementById("ticked-count").textContent = chosen;
  const page = document.getElementById("tick-page");
  page.checked = chosen > 0 && chosen === shown.length;
  page.indeterminate = chosen > 0 && chosen < shown.length;
}

// The box that ticks all goes with the last box that it ticks, and may have the focus. Not while rows are being
// put in the place of others: then there is none for a moment.
function hide() {
  const page = document.getElementById("tick-page");
  if (!page) return;
  const focused = document.activeElement === page;
  page.hidden = boxes().length === 0;
  if (focused && page.hidden) document.getElementById("main").focus();
}

function tick(box, checked) {
  box.checked = checked;
  if (checked) ticked.add(box.value);
  else ticked.delete(box.value);
}

function untick() {
  const matching = document.getElementById("tick-matching");
  if (matching) matching.checked = false;
  for (const box of boxes()) tick(box, false);
  ticked.clear();
  count();
}

document.body.addEventListener("click", (event) => {
  const box = event.target.closest(".tick");
  if (!box) return;
  const all = boxes();
  // With shift, everything between this box and the one before it.
  const [from, to] = [all.indexOf(last), all.indexOf(box)];
  const range = event.shiftKey && from >= 0 ? all.slice(Math.min(from, to), Math.max(from, to) + 1) : [box];
  for (const each of range) tick(each, box.checked);
  last = box;
  count();
});

document.getElementById("tick-page")?.addEventListener("change", (event) => {
  for (const box of boxes()) tick(box, event.target.checked);
  count();
});

document.getElementById("untick")?.addEventListener("click", () => {
  untick();
  document.getElementById("tick-page").focus();
});

// A row that the live view put in anew has an empty box. It is ticked at once: with nothing ticked the bar below
// would be hidden for a moment, and lose the focus.
for (const moment of ["htmx:oobAfterSwap", "htmx:afterSettle"]) {
  document.body.addEventListener(moment, () => {
    const lastId = last?.id;
    for (const box of boxes()) box.checked = ticked.has(box.value);
    if (lastId && !last.isConnected) last = document.getElementById(lastId);
    count();
  });
}
document.body.addEventListener("htmx:afterSettle", hide);

document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.target.querySelector("[data-done]")) untick();
});

// The browser restores boxes when one comes back to the page.
for (const box of boxes()) tick(box, box.checked);
count();
hide();

// --- boxes that suggest ---

const FOCUS = "tailrace-focus";

function offersOf(box) {
  return document.getElementById(box.getAttribute("aria-controls"));
}

function close(box) {
  offersOf(box).hidden = true;
  box.setAttribute("aria-expanded", "false");
  box.removeAttribute("aria-activedescendant");
}

function open(box) {
  offersOf(box).hidden = false;
  box.setAttribute("aria-expanded", "true");
}

function move(box, step) {
  const offers = [...offersOf(box).querySelectorAll("[role=option]")];
  if (!offers.length) return;
  const at = offers.findIndex((offer) => offer.ariaSelected === "true");
  const next = at < 0 ? (step > 0 ? 0 : offers.length - 1) : (at + step + offers.length) % offers.length;
  offers.forEach((offer, index) => offer.setAttribute("aria-selected", index === next));
  box.setAttribute("aria-activedescendant", offers[next].id);
  offers[next].scrollIntoView({ block: "nearest" });
}

function choose(box, offer) {
  box.value = offer.dataset.value;
  close(box);
  // One comes back to where one was, to add another.
  sessionStorage.setItem(FOCUS, box.id);
  box.form.requestSubmit();
}

document.body.addEventListener("htmx:afterSwap", (event) => {
  const box = document.activeElement;
  if (box?.role === "combobox" && event.target === offersOf(box)) open(box);
});

document.body.addEventListener("keydown", (event) => {
  const box = event.target.closest("[role=combobox]");
  if (!box) return;
  const offers = offersOf(box);
  const active = !offers.hidden && offers.querySelector("[aria-selected=true]");
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    if (offers.hidden) open(box);
    move(box, event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "Enter" && active) {
    event.preventDefault();
    choose(box, active);
  } else if (event.key === "Escape" && !offers.hidden) {
    event.preventDefault();
    close(box);
  }
});

// Before the box loses the focus to what is clicked.
document.body.addEventListener("pointerdown", (event) => {
  const offer = event.target.closest("[role=option]");
  if (!offer) return;
  event.preventDefault();
  choose(document.querySelector(`[aria-controls="${offer.parentElement.id}"]`), offer);
});

document.body.addEventListener("focusout", (event) => {
  if (event.target.role === "combobox") close(event.target);
});

const before = sessionStorage.getItem(FOCUS);
sessionStorage.removeItem(FOCUS);
if (before) document.getElementById(before)?.focus();

// An address says only what was asked.
document.querySelector(".records-filter")?.addEventListener("submit", (event) => {
  const form = event.target;
  const ranged = form.elements.window?.value === "range";
  for (const field of form.elements) {
    const unused = !ranged && (field.name === "since" || field.name === "until");
    if (field.name && (field.value === "" || unused)) field.disabled = true;
  }
});

window.addEventListener("pageshow", () => {
  for (const field of document.querySelector(".records-filter")?.elements ?? []) field.disabled = false;
});

// --- IDs that are copied ---

document.body.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await copy(button.dataset.copy);
  button.focus();
  button.dataset.copied = "";
  setTimeout(() => delete button.dataset.copied, 1200);
});

// --- keys ---

document.body.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const writing = event.target.matches("input:not([type=checkbox]), select, textarea");
  if (event.key === "/" && !writing) {
    event.preventDefault();
    document.querySelector('[aria-keyshortcuts="/"]')?.focus();
  }
  // Within the table, j and k go from row to row; the space bar ticks.
  const row = !writing && (event.key === "j" || event.key === "k") && event.target.closest("[data-records] tr");
  const next = row && (event.key === "j" ? row.nextElementSibling : row.previousElementSibling);
  if (next) (next.querySelector(".tick") ?? next.querySelector(".id")).focus();
});
