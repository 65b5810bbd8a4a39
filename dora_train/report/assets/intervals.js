// How far each setting is behind the best one, with the interval of the difference: a row each.
// SVG in percent of its width, coloured by page.css: nothing is drawn again for another size or theme.

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

class Intervals {
  /**
   * @param box where the rows go
   * @param settings [{name, verdict, behind: [difference, low, high]}], any of the three may be null
   * @param tell(setting or null, x, y): what the pointer is at
   */
  constructor(box, settings, tell) {
    const numbers = settings.flatMap(({ behind }) => behind).filter((value) => value !== null);
    const { low, high } = span([0, ...numbers]), margin = (high - low) * 0.04;
    Object.assign(this, { box, settings, tell, low: Math.min(0, low) - margin, high: high + margin });
    this.rows = new Map(); // of the settings that were shown: there may be thousands
  }

  /** Where a number is; at an edge if it is beyond. */
  x(value) { return `${(100 * Math.max(0, Math.min(1, (value - this.low) / (this.high - this.low)))).toFixed(2)}%`; }

  row({ name, verdict, behind }, tell) {
    const row = document.createElement("div");
    row.className = `interval ${verdict}`;
    row.tabIndex = 0;
    row.append(this.cell("interval-name", name), this.plot(behind), this.cell("interval-verdict", verdict));
    row.addEventListener("pointermove", (event) => tell(event.clientX, event.clientY));
    row.addEventListener("focus", () => { const box = row.getBoundingClientRect(); tell(box.left + 40, box.bottom - 12); });
    for (const end of ["pointerleave", "blur"]) row.addEventListener(end, () => tell(null));
    return row;
  }

  cell(kind, text) {
    const cell = document.createElement("span");
    cell.className = kind;
    cell.append(text);
    return cell;
  }

  plot([difference, low, high]) {
    const zero = this.x(0), plot = svg("svg", { height: 24, "aria-hidden": "true" });
    plot.append(svg("line", { class: "zero", x1: zero, x2: zero, y1: 0, y2: 24 }));
    if (low !== null) plot.append(svg("line", { class: "range", x1: this.x(low), x2: this.x(high), y1: 12, y2: 12 }));
    if (difference === null) return plot;
    if (difference > this.high) plot.append(svg("text", { x: "100%", y: 16, "text-anchor": "end" }, "→"));
    else plot.append(svg("circle", { cx: this.x(difference), cy: 12, r: 4, class: low === null ? "hollow" : "" }));
    return plot;
  }

  axis() {
    const row = document.createElement("div"), plot = svg("svg", { height: 20, "aria-hidden": "true" });
    row.className = "interval axis";
    for (const value of ticks(this.low, this.high, 4)) {
      plot.append(svg("text", { x: this.x(value), y: 14, "text-anchor": "middle" }, short(Math.abs(value) < 1e-12 ? 0 : value)));
    }
    row.append(this.cell("interval-name", ""), plot, this.cell("interval-verdict", ""));
    return row;
  }

  mark(setting) { for (const [at, row] of this.rows) row.classList.toggle("hot", at === setting); }

  /** Show what `visible` says, at most so many. */
  only(visible, most) {
    const left = this.settings.map((_, at) => at).filter(visible).slice(0, most);
    for (const at of left) {
      if (!this.rows.has(at)) this.rows.set(at, this.row(this.settings[at], (x, y) => this.tell(x === null ? null : at, x, y)));
    }
    this.box.replaceChildren(...left.map((at) => this.rows.get(at)), this.axis());
  }
}
