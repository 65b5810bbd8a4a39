"use strict";
// Three charts on canvas: a learning curve with bands, a search's trials, and parallel coordinates. Each takes the data
// it draws and a few functions to ask and to tell; none knows of the others, nor of the tables.

const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** A canvas of the size it has on the page, in the screen's own pixels; cleared. */
function sheet(canvas) {
  const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(box.width * ratio));
  canvas.height = Math.max(1, Math.round(box.height * ratio));
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = FONT;
  return { context, width: box.width, height: box.height };
}

/** A value of a parameter, or a round number between two: it may name something, so no digit is left out. */
function exact(value) {
  return typeof value === "string" ? value : String(Number(value.toPrecision(15)));
}

/** Round numbers between two, about as many as asked for. */
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return found;
}

function decades(low, high) {
  const found = [];
  for (let power = Math.ceil(Math.log10(low) - 1e-9); 10 ** power <= high * (1 + 1e-9); power += 1) found.push(10 ** power);
  const step = Math.ceil(found.length / 8);
  return found.length > 1 ? found.filter((_, at) => at % step === 0) : ticks(low, high, 4);
}

/** A measured number with four digits. */
function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value), round = Number(value.toPrecision(4));
  return size >= 1e6 || (size > 0 && size < 1e-4) ? round.toExponential() : String(round);
}

const SAMPLES = 50;

/** Some values of a curve, as many of a short one as of a long one: thousands of epochs must not outweigh three. */
function sampled(values) {
  const there = values.filter((value) => value !== null && value !== undefined);
  return there.length ? Array.from({ length: SAMPLES }, (_, at) => there[Math.floor(at / SAMPLES * there.length)]) : [];
}

/** Where most values lie: a run that diverged must not flatten all the others. */
function span(values) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  if (!sorted.length) return null;
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const slack = 1.5 * (at(0.95) - at(0.05)) || Infinity;
  let low = Math.max(sorted[0], at(0.05) - slack), high = Math.min(sorted[sorted.length - 1], at(0.95) + slack);
  if (low === high) { low -= Math.abs(low) * 0.05 || 0.5; high += Math.abs(high) * 0.05 || 0.5; }
  return { low, high };
}

/** A figure whose x axis counts from 1: two canvases, the upper one for what the pointer is at. */
class Chart {
  constructor(title, label) {
    Object.assign(this, { log: false, stride: 1, length: 0 });
    this.figure = document.createElement("figure");
    this.caption = document.createElement("figcaption");
    this.caption.append(title);
    this.canvas = document.createElement("canvas");
    this.over = document.createElement("canvas");
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", label);
    this.figure.append(this.caption, this.canvas, this.over);
  }

  /** Where numbers of a range lie on a canvas of this size. */
  lay(range, width, height) {
    if (this.log && range.low <= 0) range.low = range.high / 1e4;
    const scale = this.log ? Math.log10 : (value) => value;
    const [bottom, top] = [scale(range.low), scale(range.high)];
    const pad = (top - bottom) * 0.04;
    this.box = { left: 50, right: width - 16, top: 10, bottom: height - 24 };
    this.x = (at) => this.box.left + (this.length < 2 ? 0.5 : at / (this.length - 1)) * (this.box.right - this.box.left);
    this.y = (value) => this.box.bottom - (scale(value) - bottom + pad) / (top - bottom + 2 * pad || 1) * (this.box.bottom - this.box.top);
    this.range = range;
  }

  axes(context) {
    const { left, right, top, bottom } = this.box;
    context.lineWidth = 1;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const value of (this.log ? decades : ticks)(this.range.low, this.range.high, 5)) {
      const y = Math.round(this.y(value)) + 0.5;
      context.strokeStyle = colour("line");
      context.beginPath(); context.moveTo(left, y); context.lineTo(right, y); context.stroke();
      context.fillStyle = colour("soft");
      context.fillText(short(value), left - 7, y);
    }
    context.textAlign = "center";
    context.textBaseline = "top";
    const last = this.epoch(this.length - 1), wanted = ticks(1, Math.max(2, last), 6).filter(Number.isInteger);
    for (const epoch of [...new Set([1, ...wanted])].filter((one) => one >= 1 && one <= last)) {
      if (epoch !== 1 && this.x((epoch - 1) / this.stride) - this.x(0) < 24) continue;
      context.fillText(String(epoch), this.x((epoch - 1) / this.stride), bottom + 7);
    }
  }

  clip(context) {
    const { left, right, top, bottom } = this.box;
    context.beginPath();
    context.rect(left - 4, top - 4, right - left + 8, bottom - top + 8);
    context.clip();
  }

  epoch(at) { return at * this.stride + 1; }

  path(context, values) {
    let open = false;
    values.forEach((value, at) => {
      if (value === null || (this.log && value <= 0)) { open = false; return; }
      if (open) context.lineTo(this.x(at), this.y(value)); else context.moveTo(this.x(at), this.y(value));
      open = true;
    });
  }
}

class Curves extends Chart {
  /**
   * @param name the metric
   * @param curves one for each setting, or null: {mean, low, high, n}, a value an epoch
   * @param stride every which epoch they hold
   * @param ask {shade(setting) -> colour or "", shown(setting) -> bool}
   * @param tell(setting or null, epoch, x, y): what the pointer is at
   * @param axis what a value stands for: "epoch", or "entry" of a history by steps
   */
  constructor(name, curves, stride, ask, tell, axis) {
    super(name.replace(".", " "), `${name} by ${axis}`);
    Object.assign(this, { name, curves, stride, ask, tell, axis, hot: null });
    this.length = Math.max(...curves.map((curve) => curve ? curve.mean.length : 0));
    const { low, high } = span(curves.flatMap((curve) => sampled(curve?.mean ?? []))) || { low: 0, high: 0 };
    this.log = low > 0 && high > 1000 * low;
    if (low > 0 && high > 5 * low) this.caption.append(this.logButton());
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerdown", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.tell(null));
  }

  logButton() {
    const button = document.createElement("button");
    button.textContent = "log";
    button.setAttribute("aria-pressed", String(this.log));
    button.addEventListener("click", () => {
      this.log = !this.log;
      button.setAttribute("aria-pressed", String(this.log));
      this.draw();
    });
    return button;
  }

  frame(width, height) {
    this.grey = colour("grey"); // asked once, not for each of thousands of curves
    const shown = this.curves.filter((curve, at) => curve && this.ask.shown(at));
    const range = span((shown.length ? shown : this.curves.filter(Boolean)).flatMap(
      (curve) => curve.low ? [...sampled(curve.low), ...sampled(curve.high)] : sampled(curve.mean))) || { low: 0, high: 1 };
    this.lay(range, width, height);
  }

  draw() {
    const { context, width, height } = sheet(this.canvas);
    this.frame(width, height);
    this.axes(context);
    this.clip(context);
    const order = this.curves.map((_, at) => at).filter((at) => this.curves[at] && this.ask.shown(at)).reverse();
    const many = order.length > 60;
    for (const at of order) if (this.ask.shade(at)) this.band(context, at, 0.13);
    for (const at of order) this.line(context, at, this.ask.shade(at) ? 1.8 : 1, this.ask.shade(at) || !many ? 1 : 0.4);
    this.mark(this.hot);
  }

  line(context, at, width, alpha) {
    const { mean } = this.curves[at];
    context.strokeStyle = context.fillStyle = this.ask.shade(at) || this.grey;
    context.globalAlpha = alpha;
    context.lineWidth = width;
    context.lineJoin = "round";
    context.beginPath();
    this.path(context, mean);
    context.stroke();
    if (mean.filter((value) => value !== null).length === 1) {
      const only = mean.findIndex((value) => value !== null);
      context.beginPath(); context.arc(this.x(only), this.y(mean[only]), 2.5, 0, 7); context.fill();
    }
    context.globalAlpha = 1;
  }

  band(context, at, alpha) {
    const { low, high } = this.curves[at];
    if (!low) return;
    context.fillStyle = this.ask.shade(at) || this.grey;
    context.globalAlpha = alpha;
    const inside = low.map((value, epoch) => epoch).filter((epoch) => low[epoch] !== null && (!this.log || low[epoch] > 0));
    context.beginPath();
    for (const epoch of inside) context.lineTo(this.x(epoch), this.y(high[epoch]));
    for (const epoch of inside.reverse()) context.lineTo(this.x(epoch), this.y(low[epoch]));
    context.fill();
    context.globalAlpha = 1;
  }

  /** Draw one setting over the others, with its value at the pointer's epoch. */
  mark(setting, at = null) {
    this.hot = setting;
    const { context } = sheet(this.over);
    if (setting === null || !this.curves[setting]) return;
    this.clip(context);
    this.band(context, setting, 0.25);
    context.shadowColor = colour("card");
    context.shadowBlur = 3;
    this.line(context, setting, 2.8, 1);
    const value = at === null ? null : this.curves[setting].mean[at];
    if (value !== null) {
      context.fillStyle = this.ask.shade(setting) || colour("ink");
      context.beginPath(); context.arc(this.x(at), this.y(value), 4, 0, 7); context.fill();
    }
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const share = (x - this.box.left) / (this.box.right - this.box.left);
    const at = Math.max(0, Math.min(this.length - 1, Math.round(share * (this.length - 1))));
    let best = null, distance = 60;
    this.curves.forEach((curve, setting) => {
      const value = curve && this.ask.shown(setting) ? curve.mean[at] : null;
      if (value === null || value === undefined) return;
      const away = Math.abs(this.y(value) - y);
      if (away < distance) { best = setting; distance = away; }
    });
    this.tell(best, best === null ? null : { chart: this, at }, event.clientX, event.clientY);
  }

  /** What is known of a setting at one epoch, in words. */
  words(setting, at) {
    const curve = this.curves[setting], value = curve.mean[at];
    const several = curve.n && curve.n[at] > 1;
    const range = several ? ` (${short(curve.low[at])} to ${short(curve.high[at])}, ${curve.n[at]} runs)` : "";
    return `${this.axis} ${this.epoch(at)} · ${this.name.replace(".", " ")} ${short(value)}${range}`;
  }
}

class Parallel {
  /**
   * @param axes [{title, numeric, values}], a value a run: text, "" where there is none. The last one is the metric:
   *   numbers, null where there is none
   * @param good 0 to 1 for each run, 1 the best; null: not known
   * @param tell(run or null, x, y); @param choose(set of runs or null)
   */
  constructor(box, axes, good, tell, choose) {
    Object.assign(this, { box, good, tell, choose, brushes: new Map(), hot: null, drag: null });
    this.axes = axes.map((axis) => ({ ...axis, ...Parallel.scale(axis) }));
    this.canvas = box.appendChild(document.createElement("canvas"));
    this.over = box.appendChild(document.createElement("canvas"));
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", "parallel coordinates of the runs");
    box.style.minWidth = `${Math.max(320, axes.length * 92)}px`;
    this.canvas.addEventListener("pointerdown", (event) => this.down(event));
    this.canvas.addEventListener("pointermove", (event) => this.move(event));
    this.canvas.addEventListener("pointerup", (event) => this.up(event));
    this.canvas.addEventListener("pointerleave", () => { if (!this.drag) this.tell(null); });
  }

  /** Few different values stand at equal distances; many numbers on a line, or on a logarithmic one. */
  static scale({ values, numeric }) {
    const there = [...new Set(values.filter((value) => value !== null && value !== ""))];
    there.sort((a, b) => numeric ? a - b : String(a).localeCompare(String(b)));
    if (!numeric || there.length <= 7) {
      const place = new Map(there.map((value, at) => [value, there.length < 2 ? 0.5 : at / (there.length - 1)]));
      const step = Math.ceil(there.length / 14);
      return { place: (value) => place.get(value), marks: there.filter((_, at) => at % step === 0) };
    }
    const [low, high] = [Number(there[0]), Number(there[there.length - 1])], log = low > 0 && high / low >= 20;
    const scale = log ? Math.log : (value) => value;
    const place = (value) => value === null || value === "" ? undefined : (scale(Number(value)) - scale(low)) / (scale(high) - scale(low) || 1);
    return { place, marks: (log ? decades : ticks)(low, high, 5) };
  }

  frame(width, height) {
    this.size = { left: 44, right: width - 64, top: 40, bottom: height - 34 };
    const gap = (this.size.right - this.size.left) / Math.max(1, this.axes.length - 1);
    this.x = (axis) => this.axes.length < 2 ? width / 2 : this.size.left + axis * gap;
    this.y = (place) => place === undefined ? this.size.bottom + 18 : this.size.bottom - place * (this.size.bottom - this.size.top);
  }

  at(run, axis) { return this.y(this.axes[axis].place(this.axes[axis].values[run])); }

  chosen(run) {
    return [...this.brushes].every(([axis, [top, bottom]]) => {
      const y = this.at(run, axis);
      return y >= top && y <= bottom;
    });
  }

  draw() {
    const { context, width, height } = sheet(this.canvas), grey = colour("grey");
    this.frame(width, height);
    const order = this.good.map((_, run) => run).sort((a, b) => (this.good[a] ?? -1) - (this.good[b] ?? -1));
    const [low, high] = [colour("low"), colour("high")];
    for (const run of order) {
      const good = this.good[run];
      context.strokeStyle = good === null ? grey : Parallel.mix(low, high, good);
      context.setLineDash(good === null ? [3, 4] : []);
      context.globalAlpha = this.chosen(run) ? (order.length > 100 ? 0.35 + 0.6 * (good ?? 0) : 0.9) : 0.06;
      context.lineWidth = 1.3 + (good ?? 0);
      this.line(context, run);
    }
    context.globalAlpha = 1;
    context.setLineDash([]);
    this.axes.forEach((axis, at) => this.axis(context, axis, at));
    this.mark(this.hot);
  }

  static mix(low, high, share) {
    const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    const [from, to] = [parts(low), parts(high)];
    return `rgb(${from.map((part, at) => Math.round(part + (to[at] - part) * share)).join(" ")})`;
  }

  line(context, run) {
    context.beginPath();
    context.moveTo(this.x(0), this.at(run, 0));
    for (let axis = 1; axis < this.axes.length; axis += 1) {
      const [x0, x1, y0, y1] = [this.x(axis - 1), this.x(axis), this.at(run, axis - 1), this.at(run, axis)];
      context.bezierCurveTo((x0 + x1) / 2, y0, (x0 + x1) / 2, y1, x1, y1);
    }
    context.stroke();
  }

  axis(context, axis, at) {
    const x = Math.round(this.x(at)) + 0.5, { top, bottom } = this.size;
    context.strokeStyle = colour("grey");
    context.lineWidth = 1;
    context.beginPath(); context.moveTo(x, top); context.lineTo(x, bottom); context.stroke();
    const brush = this.brushes.get(at);
    if (brush) {
      context.fillStyle = colour("accent");
      context.globalAlpha = 0.25;
      context.fillRect(x - 7, brush[0], 14, brush[1] - brush[0]);
      context.globalAlpha = 1;
    }
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    context.fillStyle = colour("ink");
    context.font = `600 ${FONT}`;
    context.fillText(this.fitted(context, axis.title, 104), x, 22);
    context.font = FONT;
    context.textAlign = "left";
    context.textBaseline = "middle";
    const written = at === this.axes.length - 1 ? short : exact; // the last axis is measured
    for (const value of axis.marks) this.label(context, written(value), x + 6, this.y(axis.place(value)) - 8);
    if (axis.values.some((value) => axis.place(value) === undefined)) this.label(context, "none", x + 6, this.y(undefined) - 8);
  }

  label(context, text, x, y) {
    const shown = this.fitted(context, text, Math.min(130, x > this.size.right ? 62 : this.x(1) - this.x(0) - 14));
    context.lineWidth = 3.5;
    context.lineJoin = "round";
    context.strokeStyle = colour("card");
    context.strokeText(shown, x, y);
    context.fillStyle = colour("soft");
    context.fillText(shown, x, y);
  }

  fitted(context, text, width) {
    let shown = text;
    while (shown.length > 2 && context.measureText(shown).width > width) shown = `${shown.slice(0, -2)}…`;
    return shown;
  }

  mark(run) {
    this.hot = run;
    const { context } = sheet(this.over);
    if (run === null) return;
    context.strokeStyle = colour("c1");
    context.lineWidth = 3;
    this.line(context, run);
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const axis = this.axes.map((_, at) => at).find((at) => Math.abs(this.x(at) - x) < 14);
    return { x, y, axis };
  }

  down(event) {
    const { y, axis } = this.place(event);
    if (axis === undefined) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = { axis, from: y };
    this.brushes.delete(axis); // a click alone lets go of what was chosen
  }

  move(event) {
    const { x, y, axis } = this.place(event);
    this.canvas.style.cursor = axis === undefined ? "default" : "ns-resize";
    if (this.drag) {
      this.brushes.set(this.drag.axis, [Math.min(this.drag.from, y), Math.max(this.drag.from, y)]);
      this.draw();
      return;
    }
    this.tell(this.nearest(x, y), event.clientX, event.clientY);
  }

  up(event) {
    if (!this.drag) return;
    const [top, bottom] = this.brushes.get(this.drag.axis) || [0, 0];
    if (bottom - top < 5) this.brushes.delete(this.drag.axis);
    this.drag = null;
    this.draw();
    this.choose(this.brushes.size ? new Set(this.good.map((_, run) => run).filter((run) => this.chosen(run))) : null);
  }

  nearest(x, y) {
    let after = this.axes.findIndex((_, at) => this.x(at) >= x);
    if (after < 1) after = x < this.x(0) ? 1 : this.axes.length - 1;
    if (this.axes.length < 2) return null;
    const t = Math.max(0, Math.min(1, (x - this.x(after - 1)) / (this.x(after) - this.x(after - 1))));
    const ease = t * t * (3 - 2 * t);
    let best = null, distance = 14;
    this.good.forEach((_, run) => {
      if (!this.chosen(run)) return;
      const away = Math.abs(this.at(run, after - 1) * (1 - ease) + this.at(run, after) * ease - y);
      if (away < distance) { best = run; distance = away; }
    });
    return best;
  }
}
