// The map of the collection: similar spans lie near each other. A lasso around some shows only these in the grid.

import { Refused, choose, counted, element, media, reasonOf, shown } from "./api.js";
import { middlesOf, placesBeside } from "./numbers.js";

const COLOURS = [ // tell apart in light and dark, also with colour-blind eyes; then they repeat in another shape
  [0, 114, 178], [230, 159, 0], [0, 158, 115], [204, 121, 167], [86, 180, 233], [213, 94, 0], [160, 140, 20],
  [117, 80, 170], [60, 160, 60], [200, 60, 80], [20, 140, 160], [150, 100, 60],
];
const GREY = [140, 147, 155];
const SHAPES = [ // corners, from -1 to 1
  [-1, -1, 1, -1, 1, 1, -1, 1], [0, -1.3, 1.2, 1, -1.2, 1], [0, -1.4, 1.4, 0, 0, 1.4, -1.4, 0], [0, 1.3, 1.2, -1, -1.2, -1],
  [-0.4, -1.2, 0.4, -1.2, 0.4, -0.4, 1.2, -0.4, 1.2, 0.4, 0.4, 0.4, 0.4, 1.2, -0.4, 1.2, -0.4, 0.4, -1.2, 0.4, -1.2, -0.4, -0.4, -0.4],
];
const MOST_NAMED = 60, MARGIN = 12, NEAR = 14, MOST_CORNERS = 120;

export class SpanMap {
  constructor(section, { onLasso, onChoose, onError, colourings, namesOf }) {
    this.section = section;
    Object.assign(this, { onLasso, onChoose, onError, namesOf });
    this.canvas = element("canvas");
    this.canvas.setAttribute("role", "img");
    this.method = element("select", { title: "How the map is made" });
    for (const [value, text] of [["pca", "PCA"], ["tsne", "t-SNE"]]) this.method.append(element("option", { value, textContent: text }));
    this.colouring = element("select", { title: "What the colours are" });
    for (const [value, text] of colourings) this.colouring.append(element("option", { value, textContent: text }));
    this.state = element("output", { className: "quiet" });
    this.peek = element("img", { className: "peek", alt: "", hidden: true });
    const row = element("div", { className: "row" }, element("label", {}, "Map ", this.method), element("label", {}, "Colour ", this.colouring), this.state);
    this.legend = element("ul", { className: "legend quiet" });
    section.append(row, element("div", { className: "sheet" }, this.canvas, this.peek), this.legend);
    this.method.addEventListener("change", () => this.onLasso(this.method.value, null));
    this.colouring.addEventListener("change", () => this.colour());
    for (const type of ["pointerdown", "pointermove", "pointerup", "pointerleave", "pointercancel"]) {
      this.canvas.addEventListener(type, (event) => this[type](event));
    }
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.maps = {};
    this.colours = null;
    this.turn = 0; // of asking for colours
  }

  async show(method, lasso) {
    choose(this.method, method);
    this.lasso = lasso ? lasso.split(",").map(Number) : null;
    this.state.textContent = this.hint;
    try {
      this.maps[method] ??= new Uint16Array(await bytes(`/api/map?method=${method}`));
      if (this.method.value !== method) return;
      this.points = this.maps[method];
      this.canvas.setAttribute("aria-label", `Map of ${counted(this.points.length / 2, "span")}; draw around some to see only these`);
      this.state.textContent = this.hint;
      this.draw();
      if (!this.colours || this.colouring.value === "mark") await this.colour();
    } catch (error) { this.state.textContent = ""; this.onError(error); }
  }

  async colour() {
    const by = this.colouring.value, turn = this.turn += 1;
    try {
      if (by === "cluster") this.state.textContent = "looking for clusters …";
      const colours = by ? new Int16Array(await bytes(`/api/colours?by=${by}`)) : null;
      if (this.turn !== turn) return; // others were asked for since
      Object.assign(this, { by, colours });
      this.draw();
      this.name(by);
    } catch (error) { this.onError(error); }
    this.state.textContent = this.hint;
  }

  newMarks() { if (this.colouring.value === "mark" && !this.section.hidden) this.colour(); }

  get hint() {
    if (!this.maps[this.method.value]) return "computing the map …";
    return this.lasso ? "" : "Draw around points to see only these.";
  }

  name(by) { // what the colours are
    const numbers = by ? [...new Set(this.colours)].sort((one, other) => one - other) : [];
    const items = numbers.slice(0, MOST_NAMED).map((number) => {
      return element("li", {}, sample(number), number < 0 ? "none" : this.namesOf(by, number));
    });
    if (numbers.length > MOST_NAMED) items.push(element("li", { textContent: `and ${numbers.length - MOST_NAMED} more` }));
    this.legend.replaceChildren(...items);
  }

  place(point) { // in the canvas, in CSS pixels; on the map y grows upwards, as on that of v3s explore
    const side = Math.min(this.canvas.clientWidth, this.canvas.clientHeight) - 2 * MARGIN;
    const left = (this.canvas.clientWidth - side) / 2, top = (this.canvas.clientHeight - side) / 2;
    return { side, left, top, x: left + point[0] * side, y: top + (1 - point[1]) * side };
  }

  draw() {
    const { canvas, points } = this;
    if (!points || !canvas.clientWidth) return;
    const scale = devicePixelRatio || 1, width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
    Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d"), image = context.createImageData(width, height), pixels = new Uint32Array(image.data.buffer);
    const { side, left, top } = this.place([0, 0]), count = points.length / 2;
    const size = Math.max(1, Math.round((count < 3000 ? 6 : count < 30000 ? 4 : 1.5) * scale)), shapes = SHAPES.map((shape) => rowsOf(shape, size));
    for (let number = 0; number < count; number += 1) {
      const group = this.colours ? this.colours[number] : 0;
      const [red, green, blue] = colourOf(group);
      const colour = (255 << 24) | (blue << 16) | (green << 8) | red;
      const x = Math.round((left + points[2 * number] / 65535 * side) * scale), y = Math.round((top + (1 - points[2 * number + 1] / 65535) * side) * scale);
      for (const [row, from, to] of shapes[shapeOf(group)]) {
        const down = y + row;
        if (down >= 0 && down < height) pixels.fill(colour, down * width + Math.max(0, x + from), down * width + Math.min(width, x + to));
      }
    }
    context.putImageData(image, 0, 0);
    context.scale(scale, scale);
    if (this.by === "cluster") this.number(context);
    const corners = this.drawn ?? this.lasso;
    if (!corners) return;
    context.beginPath();
    for (let at = 0; at < corners.length; at += 2) {
      const { x, y } = this.place([corners[at], corners[at + 1]]);
      context.lineTo(x, y);
    }
    if (!this.drawn) context.closePath();
    context.lineWidth = 2;
    context.strokeStyle = getComputedStyle(canvas).color;
    context.stroke();
  }

  number(context) { // each cluster, beside a point in its middle
    const { points, colours, canvas, middles } = this;
    if (middles?.points !== points || middles.colours !== colours) this.middles = { points, colours, of: middlesOf(points, colours) };
    const marks = [...this.middles.of].map(([group, at]) => ({ name: group + 1, ...this.place([points[2 * at] / 65535, points[2 * at + 1] / 65535]) }));
    Object.assign(context, { font: "700 14px system-ui, sans-serif", textAlign: "center", textBaseline: "middle", lineWidth: 4, lineJoin: "round" });
    const style = getComputedStyle(canvas), places = placesBeside(marks, canvas.clientWidth, canvas.clientHeight);
    context.strokeStyle = style.backgroundColor;
    context.fillStyle = style.color;
    marks.forEach(({ name }, at) => {
      context.strokeText(name, places[at].x, places[at].y);
      context.fillText(name, places[at].x, places[at].y);
    });
  }

  at(event) { // a place on the map, each side 0 to 1
    const box = this.canvas.getBoundingClientRect(), { side, left, top } = this.place([0, 0]);
    return [(event.clientX - box.left - left) / side, 1 - (event.clientY - box.top - top) / side];
  }

  nearest([x, y]) { // the row of the point there, or -1
    const { points } = this, reach = NEAR / this.place([0, 0]).side;
    let best = -1, least = reach * reach;
    for (let number = 0; number < points.length / 2; number += 1) {
      const across = points[2 * number] / 65535 - x, down = points[2 * number + 1] / 65535 - y, distance = across * across + down * down;
      if (distance < least) { least = distance; best = number; }
    }
    return best;
  }

  pointerdown(event) {
    if (!this.points || event.button) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.drawn = this.at(event);
    this.peek.hidden = true;
  }

  pointermove(event) {
    if (this.drawn) {
      this.drawn.push(...this.at(event));
      requestAnimationFrame(() => this.draw());
    } else if (this.points) {
      const row = this.nearest(this.at(event));
      this.peek.hidden = row < 0;
      if (row < 0) return;
      const address = media(row, "picture.jpg"), box = this.canvas.getBoundingClientRect();
      if (this.peek.getAttribute("src") !== address) this.peek.src = address;
      const right = event.clientX - box.left > box.width / 2;
      this.peek.style.left = `${event.clientX - box.left + (right ? -170 : 16)}px`;
      this.peek.style.top = `${Math.min(event.clientY - box.top, box.height - 120)}px`;
    }
  }

  pointerup(event) {
    const { drawn } = this;
    if (!drawn) return;
    this.drawn = null;
    const width = (from) => { const all = drawn.filter((_, at) => at % 2 === from); return Math.max(...all) - Math.min(...all); };
    if (Math.max(width(0), width(1)) * this.place([0, 0]).side < 6) { // a click
      const row = this.nearest(this.at(event));
      if (row >= 0) this.onChoose(row); else this.onLasso(this.method.value, null);
      return;
    }
    const every = Math.ceil(drawn.length / 2 / MOST_CORNERS);
    const corners = [];
    for (let at = 0; at < drawn.length; at += 2 * every) corners.push(drawn[at].toFixed(4), drawn[at + 1].toFixed(4));
    if (corners.length >= 6) this.onLasso(this.method.value, corners.join(","));
    else this.draw();
  }

  pointerleave() { this.peek.hidden = true; }

  pointercancel() { this.drawn = null; this.draw(); }
}

function shapeOf(number) { return number < 0 ? 0 : Math.floor(number / COLOURS.length) % SHAPES.length; }

function rowsOf(shape, size) { // [row, from, to) of the pixels of a shape around its point
  const rows = [], half = size / 2;
  for (let row = -size; row <= size; row += 1) {
    const y = (row + 0.5) / half, inside = [];
    for (let column = -size; column <= size; column += 1) if (contains(shape, (column + 0.5) / half, y)) inside.push(column);
    if (inside.length) rows.push([row, inside[0], inside.at(-1) + 1]);
  }
  return rows;
}

function contains(corners, x, y) { // whether a ray to the right crosses the sides an odd number of times
  let inside = false;
  for (let at = 0, before = corners.length - 2; at < corners.length; before = at, at += 2) {
    const [x1, y1, x2, y2] = [corners[before], corners[before + 1], corners[at], corners[at + 1]];
    if ((y1 > y) !== (y2 > y) && x < (x2 - x1) * (y - y1) / (y2 - y1) + x1) inside = !inside;
  }
  return inside;
}

function sample(number) { // a point of the map, for the legend
  const make = (name, values) => { const made = document.createElementNS("http://www.w3.org/2000/svg", name); for (const [key, value] of Object.entries(values)) made.setAttribute(key, value); return made; };
  const drawing = make("svg", { viewBox: "-1.5 -1.5 3 3", "aria-hidden": "true" });
  drawing.append(make("polygon", { points: SHAPES[shapeOf(number)].join(" "), fill: `rgb(${colourOf(number)})` }));
  return drawing;
}

function colourOf(number) { return number < 0 ? GREY : COLOURS[number % COLOURS.length]; }

async function bytes(address) {
  const response = await fetch(address, { headers: shown });
  if (!response.ok) throw new Refused(await reasonOf(response));
  return response.arrayBuffer();
}
