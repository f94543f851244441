// What HTML and htmx do not do by themselves: dialogs that open, clocks that run, logs that follow.

// --- the server writes every time as a clock here would ---

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (zone && !document.cookie.split("; ").includes(`tz=${zone}`)) {
  const secure = location.protocol === "https:" ? "; secure" : "";
  document.cookie = `tz=${zone}; path=/; max-age=31536000; samesite=lax${secure}`;
}

const place = document.getElementById("dialog");

// --- the confirm step ---

let opener = null;

const openerOf = (menu) => document.querySelector(`[popovertarget="${menu.id}"]`);

// Only what has settled is htmx's: a form that is sent before would load a page of its own.
document.body.addEventListener("htmx:afterSettle", (event) => {
  const dialog = event.target === place && place.querySelector("dialog");
  if (!dialog || dialog.open) return;
  const asked = event.detail.requestConfig.elt;
  // A form that was refused shows the dialog again, and did not open it.
  if (asked.isConnected) opener = asked;
  dialog.showModal();
});

// The browser gives the focus back to what opened a dialog. What the deed took away cannot have it: then it goes
// to what `data-then` names, so that whoever uses the keyboard does not begin at the top of the page again.
function refocus(dialog) {
  // At this moment the focus may still be on what is hidden by now.
  const has = document.activeElement;
  if (has !== document.body && !dialog.contains(has)) return;
  const menu = opener?.closest(".row-menu");
  const then = menu ? openerOf(menu) : document.getElementById(opener?.closest("[data-then]")?.dataset.then);
  (then ?? document.getElementById("main")).focus();
}

place?.addEventListener("close", (event) => refocus(event.target), true); // it does not bubble

// Closing it first gives the focus back to what opened it; htmx then keeps it there through the swap.
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (event.target !== place) return;
  const dialog = place.querySelector("dialog");
  dialog?.close();
  // It is gone before it can tell that it was closed.
  if (dialog) refocus(dialog);
  // What an earlier attempt was refused for has been read.
  for (const row of document.querySelectorAll("tr.refused")) row.remove();
});

// What has no answer that can be shown would otherwise look as if it were done. It is said until the same
// address answers.
const addressOf = (event) => event.detail.pathInfo.finalRequestPath.split("?")[0];

function answered(event) {
  for (const notice of document.querySelectorAll("[data-unanswered-by]")) {
    if (notice.dataset.unansweredBy === addressOf(event)) notice.remove();
  }
}

function unanswered(event, words) {
  answered(event);
  const notice = document.createElement("p");
  Object.assign(notice, { className: "refusal", role: "alert", textContent: words });
  notice.dataset.unansweredBy = addressOf(event);
  (event.target.closest("dialog[open] form") ?? document.getElementById("notices")).prepend(notice);
}

document.body.addEventListener("htmx:sendError", (event) => {
  unanswered(event, document.getElementById("notices").dataset.unanswered);
});

document.body.addEventListener("htmx:responseError", (event) => {
  // A proxy answers for a server that is away.
  const away = event.detail.xhr.status >= 502;
  unanswered(event, document.getElementById("notices").dataset[away ? "unanswered" : "failed"]);
});

document.body.addEventListener("htmx:afterOnLoad", (event) => {
  if (event.detail.successful) answered(event);
});

document.body.addEventListener("click", (event) => {
  const dialog = event.target.closest("dialog");
  if (dialog && event.target.closest("[data-close]")) {
    event.preventDefault();
    dialog.close();
  }
  for (const open of document.querySelectorAll("details.pick[open]")) {
    if (!open.contains(event.target)) open.open = false;
  }
});

document.body.addEventListener("keydown", (event) => {
  const open = event.key === "Escape" && event.target.closest("details.pick[open]");
  if (open) {
    open.open = false;
    open.querySelector("summary").focus();
  }
});

// --- nothing is sent twice ---

// Who clicks or presses Enter once more before the answer is there would ask for the same again.
document.addEventListener(
  "submit",
  (event) => {
    const form = event.target;
    if (form.getAttribute("method") !== "post") return;
    if ("sent" in form.dataset) {
      event.preventDefault();
      event.stopImmediatePropagation();
    }
    form.dataset.sent = "";
  },
  true,
);

document.body.addEventListener("htmx:afterRequest", (event) => {
  const leaves = event.detail.xhr.getResponseHeader("HX-Redirect");
  if (!leaves) delete event.detail.elt.dataset?.sent;
});

// One may come back to the page as it was left.
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// --- menus of rows ---

const anchored = CSS.supports("position-area", "bottom");
let openMenu = null;

// Beside its button, above it where there is no room below, for browsers whose CSS cannot say so.
function placeMenu(menu) {
  const by = openerOf(menu).getBoundingClientRect();
  const [width, height] = [menu.offsetWidth, menu.offsetHeight];
  const below = by.bottom + height <= innerHeight || by.top < height;
  menu.style.top = `${below ? by.bottom : by.top - height}px`;
  menu.style.left = `${Math.max(0, by.right - width)}px`;
}

document.addEventListener(
  "toggle",
  (event) => {
    const menu = event.target;
    if (!menu.matches?.(".row-menu")) return;
    if (event.newState === "open") openMenu = menu.id;
    else if (openMenu === menu.id) openMenu = null;
    if (event.newState === "open" && !anchored) placeMenu(menu);
  },
  true, // it does not bubble
);

document.addEventListener(
  "scroll",
  () => {
    const menu = !anchored && openMenu && document.getElementById(openMenu);
    if (menu) placeMenu(menu);
  },
  { capture: true, passive: true },
);

// A row that the live view put in anew has its menu closed; whoever was about to choose from it goes on.
document.body.addEventListener("htmx:oobAfterSwap", () => {
  const menu = openMenu && document.getElementById(openMenu);
  if (menu && !menu.matches(":popover-open")) menu.showPopover({ source: openerOf(menu) });
});

// --- what still runs counts on ---

const begun = new WeakMap();

// `forms` are the server's, in the reader's language: under a minute, under an hour, beyond.
function words(total, forms) {
  const parts = { seconds: total, minutes: Math.floor(total / 60), hours: Math.floor(total / 3600) };
  if (parts.minutes) parts.seconds %= 60;
  if (parts.hours) parts.minutes %= 60;
  const form = forms.split("|")[parts.hours ? 2 : parts.minutes ? 1 : 0];
  return form.replace(/%\((\w+)\)(0?)\d?d/g, (_, name, zero) => String(parts[name]).padStart(zero ? 2 : 1, "0"));
}

setInterval(() => {
  for (const clock of document.querySelectorAll("[data-running-for]")) {
    if (!begun.has(clock)) begun.set(clock, performance.now() - 1000 * clock.dataset.runningFor);
    clock.textContent = words(Math.floor((performance.now() - begun.get(clock)) / 1000), clock.dataset.words);
  }
}, 1000);
