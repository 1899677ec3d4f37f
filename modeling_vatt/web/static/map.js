// The map of moments: a canvas that mouse, finger and keyboard can use.

import { fileOf, folderOf, pictureUrl, span } from "./format.js";

const at = (id) => document.getElementById(id);

// After Okabe and Ito, without the orange that stands for results; the shapes tell the groups apart too.
const GROUPS = [
  ["#3f7fd0", "circle"],
  ["#0f9d76", "square"],
  ["#c571a8", "triangle"],
  ["#a98f00", "diamond"],
  ["#3fa9d8", "cross"],
  ["#8a8f98", "circle"],
];
const MARGIN = 26;
const REACH = 16; // pixels around the pointer
const MOST = 40; // how much larger it can be drawn
const DRAG = 4; // pixels from which on a click is a drag
const SVG = "http://www.w3.org/2000/svg";

// Outlines, 10 wide.
const SHAPES = {
  circle: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0",
  square: "M-4.5-4.5h9v9h-9z",
  triangle: "M0-6L6 4.5H-6z",
  diamond: "M0-6.5L5.5 0L0 6.5L-5.5 0z",
  cross: "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
};
const PATHS = Object.fromEntries(Object.entries(SHAPES).map(([name, text]) => [name, new Path2D(text)]));

function outline(shape, x, y, size) {
  const path = new Path2D();
  path.addPath(PATHS[shape], { a: size / 5, d: size / 5, e: x, f: y });
  return path;
}

/** The part of each folder's name, at the first level where folders differ. */
function grouping(paths) {
  const folders = paths.map((path) => folderOf(path).split("/").filter(Boolean));
  for (let level = 0; level < Math.max(0, ...folders.map((parts) => parts.length)); level += 1) {
    const names = folders.map((parts) => parts[level] ?? "");
    if (new Set(names).size > 1) return names;
  }
  return paths.map(() => "");
}

export class MomentMap {
  constructor(play) {
    this.play = play;
    this.canvas = at("canvas");
    this.points = [];
    this.results = [];
    this.ranks = new Map();
    this.labels = new Map();
    this.current = -1;
    this.view = { scale: 1, x: 0.5, y: 0.5 }; // the middle, as a share of the whole
    this.grip = null;
    new ResizeObserver(() => this.draw()).observe(at("plane"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.isPrimary) this.grip = { x: event.clientX, y: event.clientY, moved: false };
    });
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("pointerleave", () => this.select(-1));
    this.canvas.addEventListener("pointercancel", () => (this.grip = null));
    this.canvas.addEventListener("blur", () => this.select(-1));
    this.canvas.addEventListener("click", (event) => {
      const dragged = this.grip?.moved;
      this.grip = null;
      const point = dragged ? -1 : this.under(event);
      if (point >= 0) this.start(point);
    });
    // Also what browsers make of two fingers on a pad; a wheel alone scrolls the page.
    this.canvas.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey) return;
        event.preventDefault();
        const box = this.canvas.getBoundingClientRect();
        this.zoom(Math.exp(-event.deltaY / 150), event.clientX - box.left, event.clientY - box.top);
      },
      { passive: false },
    );
    at("larger").addEventListener("click", () => this.zoom(1.6));
    at("smaller").addEventListener("click", () => this.zoom(1 / 1.6));
    at("whole").addEventListener("click", () => this.zoom(0));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    at("spot-picture").addEventListener("error", (event) => event.target.removeAttribute("src"));
  }

  setPoints(points) {
    this.points = points;
    this.view = { scale: 1, x: 0.5, y: 0.5 };
    this.select(-1);
    const names = grouping(points.map((point) => point.path));
    const counts = new Map();
    for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
    const largest = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
    const own = largest.slice(0, largest.length > GROUPS.length ? GROUPS.length - 1 : GROUPS.length).sort();
    this.groups = names.map((name) => (own.includes(name) ? own.indexOf(name) : GROUPS.length - 1));
    this.names = own.map((name) => name || "no folder");
    if (own.length < largest.length) this.names.push("others");
    this.legend();
    this.setResults(this.results);
    this.look();
  }

  /** Marks the windows that a result covers. */
  setResults(moments) {
    this.results = moments;
    this.ranks = new Map();
    this.labels = new Map(); // one window of each of the first results
    const byPath = new Map();
    moments.forEach((moment, rank) => byPath.set(moment.path, [...(byPath.get(moment.path) ?? []), [rank, moment]]));
    this.points.forEach((point, index) => {
      for (const [rank, moment] of byPath.get(point.path) ?? []) {
        if (point.start >= moment.start - 1e-3 && point.end <= moment.end + 1e-3) {
          if (!this.ranks.has(index)) this.ranks.set(index, rank);
          if (rank < 9 && !this.labels.has(rank)) this.labels.set(rank, index);
        }
      }
    });
    this.canvas.setAttribute(
      "aria-label",
      `Map of ${this.points.length} moments, ${this.ranks.size} of them found by the search`,
    );
    this.draw();
  }

  legend() {
    const list = at("legend");
    list.replaceChildren();
    const add = (label, color, shape, ring) => {
      const item = document.createElement("li");
      const picture = document.createElementNS(SVG, "svg");
      picture.setAttribute("viewBox", "-7 -7 14 14");
      picture.setAttribute("aria-hidden", "true");
      const mark = document.createElementNS(SVG, "path");
      mark.setAttribute("d", SHAPES[shape]);
      mark.style.fill = ring ? "none" : color;
      if (ring) Object.assign(mark.style, { stroke: color, strokeWidth: "2.5" });
      picture.append(mark);
      item.append(picture, label);
      list.append(item);
    };
    if (this.names.length > 1) this.names.forEach((name, index) => add(name, ...GROUPS[Math.min(index, GROUPS.length - 1)]));
    add("found", "var(--found)", "circle", true);
  }

  /** Pixels of a point. */
  spot(point) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    // Stretched to the window: maps have no scale.
    const x = MARGIN + ((point.x - this.low[0]) / this.extent[0]) * (width - 2 * MARGIN);
    const y = height - MARGIN - ((point.y - this.low[1]) / this.extent[1]) * (height - 2 * MARGIN);
    const { view } = this;
    return [(x - view.x * width) * view.scale + width / 2, (y - view.y * height) * view.scale + height / 2];
  }

  /** Larger by a factor, around a place in pixels that stays where it is; 0 shows the whole. */
  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const { view } = this;
    const scale = Math.max(1, Math.min(MOST, view.scale * factor));
    view.x += ((x - width / 2) / width) * (1 / view.scale - 1 / scale);
    view.y += ((y - height / 2) / height) * (1 / view.scale - 1 / scale);
    view.scale = scale;
    this.look();
  }

  /** Draws the part that is looked at, which never leaves the whole. */
  look() {
    const { view } = this;
    const half = 0.5 / view.scale;
    view.x = Math.max(half, Math.min(1 - half, view.x));
    view.y = Math.max(half, Math.min(1 - half, view.y));
    this.canvas.style.touchAction = view.scale > 1 ? "none" : "pan-y";
    at("smaller").disabled = at("whole").disabled = view.scale === 1;
    at("larger").disabled = view.scale === MOST;
    this.select(-1);
    this.draw();
  }

  move(event) {
    const { grip, view } = this;
    if (grip && event.buttons && view.scale > 1) {
      const [right, down] = [event.clientX - grip.x, event.clientY - grip.y];
      if (!grip.moved && Math.hypot(right, down) < DRAG) return;
      view.x -= right / this.canvas.clientWidth / view.scale;
      view.y -= down / this.canvas.clientHeight / view.scale;
      this.grip = { x: event.clientX, y: event.clientY, moved: true };
      this.look();
    } else this.select(this.under(event));
  }

  /** Brings a point into the part that is looked at. */
  reveal(index) {
    if (index < 0 || this.view.scale === 1) return;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const [x, y] = this.spot(this.points[index]);
    if (x > 0 && y > 0 && x < width && y < height) return;
    this.view.x += (x / width - 0.5) / this.view.scale;
    this.view.y += (y / height - 0.5) / this.view.scale;
    this.look();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !this.points.length) return;
    const xs = this.points.map((point) => point.x);
    const ys = this.points.map((point) => point.y);
    const range = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [1, 0]);
    const [[left, right], [bottom, top]] = [range(xs), range(ys)];
    this.low = [right > left ? left : left - 0.5, top > bottom ? bottom : bottom - 0.5];
    this.extent = [right - left || 1, top - bottom || 1];
    const scale = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const size = (this.points.length > 1200 ? 2.6 : this.points.length > 300 ? 3.4 : 4.6) * (width < 500 ? 0.75 : 1);
    pen.globalAlpha = this.ranks.size ? 0.5 : 0.8;
    this.points.forEach((point, index) => {
      const [fill, shape] = GROUPS[this.groups[index]];
      pen.fillStyle = fill;
      pen.fill(outline(shape, ...this.spot(point), size));
    });
    pen.globalAlpha = 1;
    // The best ones on top.
    const found = [...this.ranks].sort((a, b) => b[1] - a[1]);
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.font = "700 11px system-ui, sans-serif";
    for (const [index, rank] of found) {
      const [x, y] = this.spot(this.points[index]);
      const [fill, shape] = GROUPS[this.groups[index]];
      pen.fillStyle = fill;
      pen.fill(outline(shape, x, y, size));
      pen.beginPath();
      pen.arc(x, y, size + 4, 0, 2 * Math.PI);
      pen.lineWidth = 2.5;
      pen.strokeStyle = color("--found");
      pen.stroke();
      if (this.labels.get(rank) === index) {
        pen.lineWidth = 3;
        pen.strokeStyle = color("--surface");
        pen.fillStyle = color("--text");
        pen.strokeText(rank + 1, x, y - size - 12);
        pen.fillText(rank + 1, x, y - size - 12);
      }
    }
    if (this.current >= 0) {
      const [x, y] = this.spot(this.points[this.current]);
      pen.beginPath();
      pen.arc(x, y, size + 6, 0, 2 * Math.PI);
      pen.lineWidth = 3;
      pen.strokeStyle = color("--text");
      pen.stroke();
    }
  }

  under(event) {
    const box = this.canvas.getBoundingClientRect();
    let best = -1;
    let reach = REACH ** 2;
    this.points.forEach((point, index) => {
      const [x, y] = this.spot(point);
      const distance = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
      if (distance < reach) [best, reach] = [index, distance];
    });
    return best;
  }

  select(index, speak = false) {
    if (index === this.current) return;
    this.current = index;
    this.draw();
    this.canvas.style.cursor = index >= 0 ? "pointer" : "default";
    const card = at("spot");
    card.hidden = index < 0;
    if (index < 0) return;
    const point = this.points[index];
    const rank = this.ranks.get(index);
    const found = rank === undefined ? "" : `, result ${rank + 1}`;
    at("spot-name").textContent = fileOf(point.path);
    at("spot-time").textContent = span(point) + found;
    if (speak) at("map-live").textContent = `${fileOf(point.path)}, ${span(point)}${found}`;
    clearTimeout(this.timer);
    at("spot-picture").removeAttribute("src");
    // Not a picture for everything that the pointer passes.
    this.timer = setTimeout(() => at("spot-picture").setAttribute("src", pictureUrl(point)), 80);
    const [x, y] = this.spot(point);
    const { clientWidth: width, clientHeight: height } = this.canvas;
    card.style.left = `${Math.max(6, Math.min(x < width / 2 ? x + 16 : x - 16 - card.offsetWidth, width - card.offsetWidth - 6))}px`;
    card.style.top = `${Math.max(6, Math.min(y - card.offsetHeight / 2, height - card.offsetHeight - 6))}px`;
  }

  start(index) {
    const point = this.points[index];
    const rank = this.ranks.get(index);
    // A result plays among the results, with its score.
    if (rank === undefined) this.play([point], 0);
    else this.play(this.results, rank);
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in steps) this.visit(this.towards(...steps[event.key]));
    else if (event.key === "Home") this.visit(this.best());
    else if (event.key === "+" || event.key === "=") this.keep(() => this.zoom(1.6, ...this.middle()));
    else if (event.key === "-") this.keep(() => this.zoom(1 / 1.6, ...this.middle()));
    else if (event.key === "0") this.keep(() => this.zoom(0));
    else if ((event.key === "Enter" || event.key === " ") && this.current >= 0) this.start(this.current);
    else return;
    event.preventDefault();
  }

  visit(index) {
    this.reveal(index);
    this.select(index, true);
  }

  /** Does something and goes back to the current point. */
  keep(action) {
    const { current } = this;
    action();
    this.reveal(current);
    this.select(current);
  }

  /** Around what the keyboard zooms. */
  middle() {
    return this.current >= 0 ? this.spot(this.points[this.current]) : [];
  }

  best() {
    return this.labels.get(0) ?? (this.points.length ? 0 : -1);
  }

  /** The nearest point in a direction; sideways counts double, so that repeated steps go straight. */
  towards(right, down) {
    if (this.current < 0) return this.best();
    const [fromX, fromY] = this.spot(this.points[this.current]);
    let best = this.current;
    let least = Infinity;
    this.points.forEach((point, index) => {
      const [x, y] = this.spot(point);
      const ahead = (x - fromX) * right + (y - fromY) * down;
      const aside = Math.abs((x - fromX) * down) + Math.abs((y - fromY) * right);
      const cost = ahead + 2 * aside;
      if (ahead > 0.5 && aside <= 2 * ahead && cost < least) [best, least] = [index, cost];
    });
    return best;
  }
}
