"use strict";
const { images } = JSON.parse(document.getElementById("data").textContent);
const viewer = document.getElementById("viewer");
const stage = document.getElementById("stage");
const form = viewer.querySelector("form");
const slide = viewer.querySelector("[name=slide]");
const view = { x: 0, y: 0, z: 1 };  // shared by all panes, which keeps them in step
let shown = 0;

const make = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// ---- tables that sort -------------------------------------------------------------------------

for (const table of document.querySelectorAll(".sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.replaceChildren(make("button", { type: "button", onclick: () => sort(table, column) },
      head.textContent));
  });
}

function sort(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const up = heads[column].getAttribute("aria-sort") !== "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = table.tBodies[0];
  const order = (a, b) => {
    const [first, second] = [a, b].map((row) => row.cells[column]);
    if (column === 0) return first.textContent.localeCompare(second.textContent, "en", { numeric: true });
    const [m, n] = [first, second].map((cell) => parseFloat(cell.dataset.value));
    return Number.isNaN(m) ? 1 : Number.isNaN(n) ? -1 : m - n;
  };
  const rows = [...body.rows].sort(order);
  body.append(...(up ? rows : rows.reverse()));
}

// ---- the viewer -------------------------------------------------------------------------------

function open(index) {
  shown = (index + images.length) % images.length;
  const { name, pictures, scores } = images[shown];
  viewer.querySelector("h2").textContent = name;
  document.getElementById("scores").textContent = scores;
  [form.left, form.right].forEach((select, side) => {
    const kept = select.selectedIndex;
    select.replaceChildren(...pictures.map((p, n) => make("option", { value: n, textContent: p.caption })));
    select.selectedIndex = kept >= 0 && kept < pictures.length ? kept : Math.min(side, pictures.length - 1);
  });
  if (!viewer.open) viewer.showModal();
  draw();
}

function draw() {
  const mode = form.mode.value;
  const { pictures } = images[shown];
  const two = [form.left, form.right].map((select) => pictures[select.value]);
  const picture = (p) => make("img", { src: p.file, alt: p.caption, draggable: false });
  const label = (p, side) => make("b", { className: side, textContent: p.caption });
  const half = (side, p) => make("div", { className: `${side}-half` }, picture(p), label(p, side));
  const panes = {
    slider: () => [make("div", { className: "pane" }, half("left", two[0]), half("right", two[1]),
      make("div", { className: "handle" }))],
    side: () => pictures.map((p) => make("div", { className: "pane" }, picture(p), label(p, "left"))),
    difference: () => [make("div", { className: "pane" },
      make("div", { className: "pictures" }, ...two.map(picture)),
      label({ caption: `|${two[0].caption} − ${two[1].caption}|` }, "left"))],
  };
  stage.className = mode;
  stage.replaceChildren(...panes[mode]());
  const count = stage.children.length;
  stage.style.setProperty("--columns", count < 4 ? count : Math.ceil(Math.sqrt(count)));
  viewer.querySelectorAll(".two").forEach((choice) => { choice.hidden = mode === "side"; });
  document.getElementById("slide").hidden = mode === "side";
  place();
}

function place() {
  const gain = Math.round(1 + slide.value * 0.15);
  const values = { x: `${view.x}px`, y: `${view.y}px`, z: view.z, split: `${slide.value}%`, gain };
  for (const [name, value] of Object.entries(values)) stage.style.setProperty(`--${name}`, value);
  stage.classList.toggle("close-up", view.z > 3);
  document.querySelector("#slide span").textContent =
    form.mode.value === "difference" ? `Amplified ${gain} times` : "Slider";
}

function zoom(factor, x, y) {
  const pane = stage.firstChild.getBoundingClientRect();
  const z = factor ? Math.min(32, Math.max(1, view.z * factor)) : 1;
  const [left, top] = [x ?? pane.width / 2, y ?? pane.height / 2];
  view.x = z === 1 ? 0 : left - (left - view.x) * z / view.z;
  view.y = z === 1 ? 0 : top - (top - view.y) * z / view.z;
  view.z = z;
  place();
}

function move(dx, dy) {
  if (view.z > 1) Object.assign(view, { x: view.x + dx, y: view.y + dy });
  place();
}

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const pane = event.target.closest(".pane")?.getBoundingClientRect();
  if (pane) zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - pane.left, event.clientY - pane.top);
}, { passive: false });

stage.addEventListener("pointerdown", (event) => {
  stage.setPointerCapture(event.pointerId);
  const pane = stage.firstChild.getBoundingClientRect();
  const slides = event.target.className === "handle" || (form.mode.value === "slider" && view.z === 1);
  stage.onpointermove = (now) => {
    if (!slides) return move(now.movementX, now.movementY);
    slide.value = 100 * (now.clientX - pane.left) / pane.width;
    place();
  };
});
stage.addEventListener("pointerup", () => { stage.onpointermove = null; });

viewer.addEventListener("keydown", (event) => {
  const keys = { n: () => open(shown + 1), p: () => open(shown - 1), "+": () => zoom(1.25), "=": () => zoom(1.25),
    "-": () => zoom(0.8), 0: () => zoom(0) };
  const arrows = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
  if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === stage && arrows[event.key]) {
    event.preventDefault();
    move(...arrows[event.key]);
  } else keys[event.key]?.();
});

form.addEventListener("change", draw);
form.addEventListener("submit", (event) => event.preventDefault());
slide.addEventListener("input", place);
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { open: index, step, zoom: factor, close } = button.dataset;
  if (index !== undefined) open(Number(index));
  if (step !== undefined) open(shown + Number(step));
  if (factor !== undefined) zoom(Number(factor));
  if (close !== undefined) viewer.close();
});

// index.html#3 opens the fourth image, index.html#3/side all of its pictures side by side.
const [, index, mode] = location.hash.match(/^#(\d+)(?:\/(slider|side|difference))?$/) ?? [];
if (mode) form.mode.value = mode;
if (index && images[index]) open(Number(index));
