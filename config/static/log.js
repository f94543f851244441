// A log: following its end, links to its lines, how it is shown. Without this it can be read all the same.

import { copy } from "./clipboard.js";

const log = () => document.getElementById("log");
const button = (name) => document.getElementById(`log-${name}`);

function pressed(name, on) {
  button(name)?.setAttribute("aria-pressed", on);
}

// --- wrap and times, as this reader likes them ---

const likes = { wrap: true, times: false };

for (const name of Object.keys(likes)) {
  const kept = localStorage.getItem(`log-${name}`);
  if (kept !== null) likes[name] = kept === "true";
}

function dress() {
  for (const [name, on] of Object.entries(likes)) {
    log()?.classList.toggle(name, on);
    pressed(name, on);
  }
}

// --- following ---

// More lines than these make a page slow; those above can be fetched again.
const MOST_LINES = 5000;
let following = false;

function atEnd(pane) {
  return pane.scrollHeight - pane.scrollTop - pane.clientHeight < 40;
}

function follow(on) {
  following = on;
  pressed("follow", on);
  const pane = log();
  if (on && pane) {
    trim(pane);
    pane.scrollTop = pane.scrollHeight;
  }
}

function trim(pane) {
  const lines = pane.getElementsByClassName("line");
  const earlier = document.getElementById("earlier");
  if (lines.length <= MOST_LINES || !earlier) return;
  const first = lines[lines.length - MOST_LINES];
  while (earlier.nextElementSibling !== first) earlier.nextElementSibling.remove();
  const number = first.id.slice(1);
  const address = earlier.getAttribute("hx-get").replace(/before=\d+/, `before=${number}`);
  earlier.setAttribute("hx-get", address);
}

// Scrolling away from the end by hand stops the following, coming back to it takes it up.
document.addEventListener(
  "scroll",
  (event) => {
    if (event.target === log() && button("follow") && !button("follow").hidden) {
      following = atEnd(log());
      pressed("follow", following);
    }
  },
  true,
);

document.body.addEventListener("htmx:oobAfterSwap", () => {
  if (following) follow(true);
});

// --- lines ---

function range() {
  const found = location.hash.match(/^#L(\d+)(?:-L(\d+))?$/);
  if (!found) return null;
  const ends = [Number(found[1]), Number(found[2] ?? found[1])];
  return ends.sort((one, other) => one - other);
}

function choose() {
  for (const line of document.querySelectorAll(".line.chosen")) line.classList.remove("chosen");
  const chosen = range();
  for (let number = chosen?.[0]; chosen && number <= chosen[1] && number < chosen[0] + MOST_LINES; number++) {
    document.getElementById(`L${number}`)?.classList.add("chosen");
  }
  return chosen && document.getElementById(`L${chosen[0]}`);
}

function reveal(line) {
  const pane = log();
  pane.scrollIntoView({ block: "nearest" });
  pane.scrollTop += line.getBoundingClientRect().top - pane.getBoundingClientRect().top - pane.clientHeight / 3;
}

document.body.addEventListener("click", async (event) => {
  const link = event.target.closest(".line > a");
  if (link && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    const from = event.shiftKey && range() ? range()[0] : null;
    const number = Number(link.textContent);
    const address = new URL(link.href);
    if (from !== null && from !== number) {
      const [first, last] = [from, number].sort((one, other) => one - other);
      address.searchParams.set("line", first);
      address.hash = `L${first}-L${last}`;
    }
    history.replaceState(history.state, "", address);
    choose();
    await copy(address.href);
    link.dataset.copied = log().dataset.copied;
    setTimeout(() => delete link.dataset.copied, 1500);
    link.focus();
  }
  const toggle = event.target.closest("#log-wrap, #log-times, #log-follow");
  if (!toggle) return;
  const name = toggle.id.slice("log-".length);
  if (name === "follow") return follow(!following);
  likes[name] = !likes[name];
  localStorage.setItem(`log-${name}`, likes[name]);
  dress();
});

// --- when a log was put on the page ---

function open() {
  const pane = log();
  if (!pane) return;
  dress();
  const line = choose() ?? (pane.dataset.line && document.getElementById(`L${pane.dataset.line}`));
  if (line) {
    line.classList.add("chosen");
    following = false;
    reveal(line);
    pressed("follow", false);
  } else {
    pane.scrollTop = pane.scrollHeight;
    follow("follow" in pane.dataset);
  }
}

let below = null;

document.body.addEventListener("htmx:beforeSwap", (event) => {
  // What is read stays where it is while lines come in above it.
  below = event.target.id === "earlier" ? log().scrollHeight - log().scrollTop : null;
});

let opened = log();

document.body.addEventListener("htmx:afterSettle", () => {
  if (log() !== opened) {
    opened = log();
    open();
  }
  if (below !== null) {
    log().scrollTop = log().scrollHeight - below;
    below = null;
    choose();
  }
});

addEventListener("hashchange", () => {
  const line = choose();
  if (line) reveal(line);
  else if (range()) fetchLine();
});

// A link that names only a line, which is not on the page: it is fetched.
function fetchLine() {
  const pane = log();
  const address = new URL(document.querySelector("#log-card .search").getAttribute("hx-get"), location.href);
  address.searchParams.set("execution", pane.dataset.execution);
  address.searchParams.set("line", range()[0]);
  htmx.ajax("GET", address.pathname + address.search, { target: "#log-card", swap: "outerHTML" });
}

open();
if (range() && log() && !document.getElementById(`L${range()[0]}`)) fetchLine();
