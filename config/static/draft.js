// Step 2 of a rerun downstream: ticks in the flow and in the list. Each is shown at once and sent; those that come
// while one is under way are sent together with the next.

const pending = new Map(); // cycle → whether it is to be ticked
let sending = false;

const form = () => document.getElementById("ticks");
const field = (name) => document.querySelector(`input[type="hidden"][name="${name}"][form="ticks"]`)?.value ?? "";

function show(pick, on) {
  pick.setAttribute("aria-checked", on);
  pick.closest(".node").dataset.ticked = on;
}

async function send(values) {
  const { ajax } = window.htmx;
  const csrf = form().elements.csrfmiddlewaretoken.value;
  await ajax("POST", form().getAttribute("action"), {
    target: "#outcome",
    swap: "outerHTML",
    values: { csrfmiddlewaretoken: csrf, seen: field("seen"), shown: field("shown"), ...values },
  });
}

// Who does not see the panel hears what a change comes to.
document.body.addEventListener("htmx:afterSettle", (event) => {
  const [sum, said] = [document.querySelector("#sums dd"), document.getElementById("draft-said")];
  if (event.target.id === "outcome" && sum && said) said.textContent = sum.textContent;
});

async function flush() {
  if (sending || !pending.size) return;
  sending = true;
  const wanted = [...pending];
  pending.clear();
  const of = (on) => wanted.filter(([, each]) => each === on).map(([cycle]) => cycle).join();
  try {
    await send({ on: of(true), off: of(false) });
  } catch {
    // What could not be sent is said by the notice; what is shown must not say otherwise.
    revert(wanted);
    held.length = 0;
  }
  sending = false;
  flush();
  leave();
}

// A button means what the page shows, with the ticks that are under way: it is pressed when they are answered.
const held = [];
document.body.addEventListener("htmx:confirm", (event) => {
  const button = event.detail.triggeringEvent?.submitter;
  if (!sending || !button?.id || event.detail.elt !== form()) return;
  event.preventDefault();
  // It was not sent, so it can be pressed again.
  delete form().dataset.sent;
  held.push(button.id);
});

document.body.addEventListener("htmx:afterSettle", (event) => {
  if (sending || event.target.id !== "outcome") return;
  for (const id of held.splice(0)) document.getElementById(id)?.click();
});

function revert(wanted) {
  for (const [cycle, on] of wanted) {
    const box = document.getElementById(`tick-${cycle}`);
    if (box) {
      box.checked = !on;
      box.closest("tr").toggleAttribute("data-ticked", !on);
    }
    const pick = document.getElementById(`pick-${cycle}`);
    if (pick) show(pick, !on);
  }
}

// What was refused is shown as it was; what the answer says of it comes after that.
document.body.addEventListener("htmx:beforeSwap", ({ detail }) => {
  const { xhr, requestConfig } = detail;
  if (xhr.status < 400 || !form()) return;
  const asked = (name) => (requestConfig.formData.get(name) ?? "").split(",").filter(Boolean);
  revert([...asked("on"), ...asked("after")].map((cycle) => [cycle, true]));
  revert([...asked("off"), ...asked("not_after")].map((cycle) => [cycle, false]));
});

function tick(cycles, on) {
  for (const cycle of cycles.split(",").filter(Boolean)) pending.set(cycle, on);
  flush();
}

// --- in the flow ---

function pick(node, below) {
  if (node.getAttribute("aria-disabled")) {
    say(node.dataset.why);
    return;
  }
  const on = node.getAttribute("aria-checked") !== "true";
  show(node, on);
  if (below && !node.dataset.pick.includes(",")) send({ [on ? "after" : "not_after"]: node.dataset.pick });
  else tick(node.dataset.pick, on);
}

// What cannot be ticked says why, also to a finger that cannot hover.
function say(why) {
  if (!why) return;
  const notice = document.createElement("p");
  Object.assign(notice, { className: "note", textContent: why });
  document.getElementById("draft-notice").replaceChildren(notice);
}

document.addEventListener("click", (event) => {
  const count = event.target.closest?.(".dag .count-of");
  // htmx fetches the dialog; it does not know links of SVG.
  if (count && !(event.ctrlKey || event.metaKey || event.shiftKey)) event.preventDefault();
  const node = event.target.closest?.(".dag .pick");
  if (node) pick(node, event.shiftKey);
});

// A click with Shift selects text otherwise.
document.addEventListener("mousedown", (event) => {
  if (event.shiftKey && event.target.closest?.(".dag .pick")) event.preventDefault();
});

document.addEventListener("keydown", (event) => {
  const node = event.target.closest?.(".dag .pick");
  if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    pick(node, event.shiftKey);
  }
});

// --- in the list ---

let last = null;

document.addEventListener("click", (event) => {
  const box = event.target.closest?.("[data-ticks] .tick");
  if (!box) return;
  const boxes = [...document.querySelectorAll("[data-ticks] .tick")];
  const before = last ? boxes.findIndex((each) => each.id === last) : -1;
  const here = boxes.indexOf(box);
  // With Shift, everything between this box and the one before it.
  const [from, to] = event.shiftKey && before >= 0 ? [Math.min(before, here), Math.max(before, here)] : [here, here];
  for (const each of boxes.slice(from, to + 1)) {
    each.checked = box.checked;
    each.closest("tr").toggleAttribute("data-ticked", box.checked);
    pending.set(each.value, box.checked);
  }
  last = box.id;
  flush();
});

// Without this script the boxes are kept by a button.
for (const button of document.querySelectorAll("[name=keep]")) button.hidden = true;

// A dialog of the page changed the draft: the hidden field makes the form ask what that changed.
const look = form()?.elements.look;
document.body.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.elt === form() && event.detail.triggeringEvent?.type === "picked") {
    event.detail.parameters.look = look.value;
  }
});

// --- leaving ---

// Who goes on while a change is under way would see the draft as it was before, and lose what waits to be sent.
const changes = new Set();
let leaving = null;

function leave() {
  if (!leaving || changes.size || sending || pending.size || held.length) return;
  const go = leaving;
  leaving = null;
  go();
}

function leaveLater(event, go) {
  if (event.defaultPrevented || !(changes.size || sending)) return;
  event.preventDefault();
  leaving = go;
}

document.body.addEventListener("htmx:beforeSend", ({ detail }) => {
  if (detail.requestConfig.verb === "post") changes.add(detail.xhr);
});

document.body.addEventListener("htmx:afterRequest", ({ detail }) => {
  // What was refused is to be read here.
  if (changes.delete(detail.xhr) && !(detail.xhr.status >= 200 && detail.xhr.status < 400)) leaving = null;
  // What htmx keeps waiting behind this one is sent first.
  setTimeout(leave);
});

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]:not([hx-get])");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  leaveLater(event, () => location.assign(link.href));
});

document.addEventListener("submit", (event) => {
  if (event.target.hasAttribute("hx-post") || event.target.hasAttribute("hx-get")) return;
  leaveLater(event, () => event.target.requestSubmit(event.submitter));
});
