// A drawing of a flow: moving and zooming it, finding a node, what is chosen. Without this it scrolls all the same.

const LEAST = 0.08;
const MOST = 2;
const STEP = 1.25;
// Text of 13 px is not read below this, so the boxes say their state by their colour alone.
const FAR = 0.5;

// What the reader has done to each flow of the page, by its id: outlives every swap.
const views = new Map();
// Where one begins to look, when nothing is chosen.
const TROUBLED = ["failed", "timed_out", "lost", "running"].map((state) => `.node[data-state="${state}"]`).join();
const flows = () => document.querySelectorAll("[data-flow]");
const flowOf = (element) => element.closest?.("[data-flow]");
const paneOf = (flow) => flow.querySelector(".flow-view");
const drawingOf = (flow) => flow.querySelector(".dag");
const nodesOf = (flow) => [...flow.querySelectorAll(".dag .node")];
const viewOf = (flow) => views.get(flow.id) ?? views.set(flow.id, { scale: 1, chosen: null }).get(flow.id);

// --- zooming ---

const sizeOf = (drawing) => drawing.getAttribute("viewBox").split(" ").slice(2).map(Number);

function resize(flow, scale) {
  const [width, height] = sizeOf(drawingOf(flow));
  viewOf(flow).scale = scale;
  drawingOf(flow).setAttribute("width", width * scale);
  drawingOf(flow).setAttribute("height", height * scale);
  flow.toggleAttribute("data-far", scale < FAR);
}

// What is under the point (of the window; by default the middle) stays under it.
function zoom(flow, scale, point) {
  const pane = paneOf(flow);
  const edge = pane.getBoundingClientRect();
  const x = point ? point.x - edge.left : pane.clientWidth / 2;
  const y = point ? point.y - edge.top : pane.clientHeight / 2;
  const before = drawingOf(flow).getBoundingClientRect();
  const at = { x: (edge.left + x - before.left) / before.width, y: (edge.top + y - before.top) / before.height };
  resize(flow, Math.min(MOST, Math.max(LEAST, scale)));
  const after = drawingOf(flow).getBoundingClientRect();
  pane.scrollBy(after.left + at.x * after.width - edge.left - x, after.top + at.y * after.height - edge.top - y);
}

function fit(flow) {
  const [width, height] = sizeOf(drawingOf(flow));
  const pane = paneOf(flow);
  const room = { width: pane.clientWidth, height: Math.max(pane.clientHeight, 240) };
  resize(flow, Math.max(LEAST, Math.min(1, room.width / width, room.height / height)));
}

const zooms = {
  in: (flow) => zoom(flow, viewOf(flow).scale * STEP),
  out: (flow) => zoom(flow, viewOf(flow).scale / STEP),
  fit,
};

// --- moving ---

function centre(flow, node, focus = false) {
  if (viewOf(flow).scale < FAR) resize(flow, 1);
  if (focus) node.focus({ preventScroll: true });
  const pane = paneOf(flow).getBoundingClientRect();
  const box = node.getBoundingClientRect();
  paneOf(flow).scrollBy(
    box.left + box.width / 2 - pane.left - pane.width / 2,
    box.top + box.height / 2 - pane.top - pane.height / 2,
  );
}

let drag = null;

document.addEventListener("pointerdown", (event) => {
  const pane = event.target.closest?.(".flow-view");
  // A finger moves the pane by itself, and its bars are grasped as bars.
  if (!pane || event.button !== 0 || event.pointerType === "touch" || event.target === pane) return;
  drag = { pane, x: event.clientX, y: event.clientY, left: pane.scrollLeft, top: pane.scrollTop, moved: false };
});

document.addEventListener("pointermove", (event) => {
  if (!drag) return;
  const [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
  drag.moved ||= Math.hypot(x, y) > 4;
  if (!drag.moved) return;
  drag.pane.toggleAttribute("data-dragged", true);
  drag.pane.scrollTo(drag.left - x, drag.top - y);
});

for (const end of ["pointerup", "pointercancel"]) {
  document.addEventListener(end, () => {
    drag?.pane.removeAttribute("data-dragged");
    // The click that follows is the drag's end, not a choice.
    setTimeout(() => (drag = null));
  });
}

// Nodes are links, which a browser would carry away.
document.addEventListener("dragstart", (event) => {
  if (event.target.closest?.(".dag")) event.preventDefault();
});

document.addEventListener(
  "wheel",
  (event) => {
    const pane = event.target.closest?.(".flow-view");
    if (!pane || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    const flow = flowOf(pane);
    zoom(flow, viewOf(flow).scale * Math.exp(-event.deltaY / 300), { x: event.clientX, y: event.clientY });
  },
  { passive: false },
);

// Two fingers zoom.
let pinch = null;
const between = ([a, b]) => ({
  apart: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY),
  point: { x: (a.clientX + b.clientX) / 2, y: (a.clientY + b.clientY) / 2 },
});

document.addEventListener(
  "touchmove",
  (event) => {
    const flow = event.touches.length === 2 && event.target.closest?.(".flow-view") && flowOf(event.target);
    if (!flow) return;
    event.preventDefault();
    const now = between(event.touches);
    pinch ??= { apart: now.apart, scale: viewOf(flow).scale };
    zoom(flow, (pinch.scale * now.apart) / pinch.apart, now.point);
  },
  { passive: false },
);
document.addEventListener("touchend", () => (pinch = null));

// --- finding ---

function matching(flow, wanted) {
  return nodesOf(flow).filter((node) =>
    `${node.dataset.title}\n${node.dataset.names ?? ""}`.toLowerCase().includes(wanted),
  );
}

function search(flow, wanted) {
  const found = wanted ? matching(flow, wanted) : [];
  drawingOf(flow).toggleAttribute("data-searched", wanted !== "");
  for (const node of nodesOf(flow)) node.classList.toggle("found", found.includes(node));
  return found;
}

function look(flow, by = 0) {
  const view = viewOf(flow);
  const wanted = flow.querySelector("[data-flow-search]").value.trim().toLowerCase();
  view.at = view.wanted === wanted ? (view.at ?? 0) + by : 0;
  view.wanted = wanted;
  const found = search(flow, wanted);
  const at = found.length ? ((view.at % found.length) + found.length) % found.length : 0;
  flow.querySelector("[data-flow-found]").textContent = wanted ? `${found.length ? at + 1 : 0}/${found.length}` : "";
  if (found.length) centre(flow, found[at]);
  return found[at];
}

document.addEventListener("input", (event) => {
  if (event.target.matches?.("[data-flow-search]")) look(flowOf(event.target));
});

// --- choosing, and what leads to what ---

const arrowsAt = (flow, key) => flow.querySelectorAll(`.edge[data-from="${key}"], .edge[data-to="${key}"]`);
const keyOf = (node) => CSS.escape(node.id.replace("node-", ""));

function light(node, on) {
  for (const arrow of arrowsAt(flowOf(node), keyOf(node))) arrow.classList.toggle("near", on);
}

for (const [name, on] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]]) {
  document.addEventListener(name, (event) => {
    const node = event.target.closest?.(".dag .node");
    if (node) light(node, on || node.matches('[aria-current="true"], :focus'));
  });
}

function choose(flow, id) {
  viewOf(flow).chosen = id;
  for (const node of nodesOf(flow)) {
    const chosen = node.id === id;
    if (chosen) node.setAttribute("aria-current", "true");
    else node.removeAttribute("aria-current");
    light(node, chosen);
  }
}

document.addEventListener(
  "click",
  (event) => {
    const flow = flowOf(event.target);
    if (!flow) return;
    const node = event.target.closest(".dag .node");
    if (node && drag?.moved) {
      event.preventDefault();
      event.stopPropagation();
    } else if (node?.hasAttribute("hx-get") && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
      // htmx fetches what stands beside the flow; it does not know links of SVG.
      event.preventDefault();
      choose(flow, node.id);
    }
  },
  true,
);

document.addEventListener("click", (event) => {
  const flow = flowOf(event.target);
  const button = flow && event.target.closest("button");
  if (!button) return;
  const { flowZoom, flowNext } = button.dataset;
  if (flowZoom) zooms[flowZoom](flow);
  else if (flowNext) next(flow, flowNext);
  else if ("flowWhole" in button.dataset) whole(flow, !flow.hasAttribute("data-whole"));
});

// One after the other, what is in a state; a group when one of its members is.
function next(flow, state) {
  const all = nodesOf(flow).filter(
    (node) => node.dataset.state === state || node.querySelector(`.shares [data-state="${state}"]`),
  );
  if (!all.length) return;
  const view = viewOf(flow);
  view.passed = view.passedState === state ? (view.passed + 1) % all.length : 0;
  view.passedState = state;
  for (const node of nodesOf(flow)) node.classList.toggle("passed", node === all[view.passed]);
  centre(flow, all[view.passed]);
}

function whole(flow, on) {
  flow.toggleAttribute("data-whole", on);
  flow.querySelector("[data-flow-whole]").setAttribute("aria-pressed", on);
}

// --- keys ---

const keys = { "+": zooms.in, "=": zooms.in, "-": zooms.out, 0: zooms.fit };

document.addEventListener("keydown", (event) => {
  const flow = flowOf(event.target);
  if (!flow || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("[data-flow-search]")) {
    if (event.key === "Enter") look(flow, event.shiftKey ? -1 : 1);
    else if (event.key === "Escape" && !event.target.value) whole(flow, false);
  } else if (event.key === "Escape") {
    whole(flow, false);
  } else if (event.target.closest(".flow-view") && keys[event.key]) {
    event.preventDefault();
    keys[event.key](flow);
  }
});

// --- a flow that is new to the page, or was swapped ---

const kept = (flow) => `flow:${location.pathname}:${flow.id}`;

function begin(flow) {
  flow.querySelector(".flow-steer").hidden = false;
  if (!drawingOf(flow)) return;
  flow.toggleAttribute("data-ready", true);
  const old = views.get(flow.id);
  const view = viewOf(flow);
  if (old) resize(flow, view.scale);
  const stored = old ? [old.left, old.top] : restored(flow);
  if (stored) paneOf(flow).scrollTo(...stored);
  paneOf(flow).addEventListener("scroll", () => {
    [view.left, view.top] = [paneOf(flow).scrollLeft, paneOf(flow).scrollTop];
  });
  const chosen = flow.querySelector('.node[aria-current="true"]');
  if (chosen && !view.chosen) choose(flow, chosen.id);
  // What is ticked begins at its source.
  const first = chosen ?? flow.querySelector(".node.fixed") ?? flow.querySelector(TROUBLED);
  if (!stored) centre(flow, first ?? flow.querySelector(".node"));
}

// Unfolding a group is a page of its own; one goes on looking where one looked.
function restored(flow) {
  const found = sessionStorage.getItem(kept(flow));
  sessionStorage.removeItem(kept(flow));
  if (!found) return null;
  const [scale, left, top] = JSON.parse(found);
  resize(flow, scale);
  return [left, top];
}

document.addEventListener("click", (event) => {
  const flow = event.target.closest?.(".node.group, [data-flow-fold]") && flowOf(event.target);
  if (!flow || !drawingOf(flow) || event.defaultPrevented) return;
  const { scale, left = 0, top = 0 } = viewOf(flow);
  sessionStorage.setItem(kept(flow), JSON.stringify([scale, left, top]));
});

function refresh() {
  for (const flow of flows()) {
    if (!flow.hasAttribute("data-ready")) begin(flow);
    if (!drawingOf(flow)) continue;
    const { chosen, wanted } = viewOf(flow);
    // A node that was put in anew does not know that it is chosen, or found.
    if (chosen) choose(flow, chosen);
    if (wanted) search(flow, wanted);
  }
}

for (const swapped of ["htmx:afterSettle", "htmx:oobAfterSwap"]) document.addEventListener(swapped, refresh);
refresh();
