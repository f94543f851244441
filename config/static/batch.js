// The instances of a batch that are chosen: ticks that outlive the live view.

const ticked = new Set();
const all = document.getElementById("tick-all");
const bar = document.getElementById("several");
const boxes = () => [...document.querySelectorAll("#instances .tick")];

function count() {
  // Who may only look has nothing to choose.
  if (!bar) return;
  const shown = boxes();
  const chosen = shown.filter((box) => box.checked).length;
  document.getElementById("ticked").textContent = chosen;
  bar.hidden = chosen === 0;
  if (!all) return;
  all.checked = chosen > 0 && chosen === shown.length;
  all.indeterminate = chosen > 0 && chosen < shown.length;
}

function tick(box, checked) {
  box.checked = checked;
  if (checked) ticked.add(box.value);
  else ticked.delete(box.value);
}

document.body.addEventListener("change", (event) => {
  if (event.target === all) for (const box of boxes()) tick(box, all.checked);
  else if (event.target.matches("#instances .tick")) tick(event.target, event.target.checked);
  else return;
  count();
});

// A row that the live view put in anew has an empty box.
document.body.addEventListener("htmx:afterSettle", () => {
  for (const box of boxes()) box.checked = ticked.has(box.value);
  count();
});

// What was done is done to all that were chosen.
document.body.addEventListener("acted", () => {
  for (const box of boxes()) tick(box, false);
  ticked.clear();
  count();
});

// The browser restores boxes when one comes back to the page.
for (const box of boxes()) tick(box, box.checked);
count();
