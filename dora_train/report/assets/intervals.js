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
   * @param settings [{name, verdict, behind: [difference, low, high]}], any of the three may be null
   * @param tell(setting or null, x, y): what the pointer is at
   */
  constructor(settings, tell) {
    const numbers = settings.flatMap(({ behind }) => behind).filter((value) => value !== null);
    const { low, high } = span([0, ...numbers]), margin = (high - low) * 0.04;
    Object.assign(this, { low: Math.min(0, low) - margin, high: high + margin });
    this.rows = settings.map((setting, at) => this.row(setting, (x, y) => tell(x === null ? null : at, x, y)));
    this.nodes = [...this.rows, this.axis()];
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

  mark(setting) { this.rows.forEach((row, at) => row.classList.toggle("hot", at === setting)); }

  /** Leave what `visible` says, at most so many. */
  only(visible, most) {
    let count = 0;
    this.rows.forEach((row, at) => {
      const fits = visible(at);
      count += fits;
      row.hidden = !fits || count > most;
    });
  }
}
