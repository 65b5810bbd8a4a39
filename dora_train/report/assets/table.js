// Elements, numbers as text, and sortable tables.

const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value; else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

const ORDER = new Intl.Collator(undefined, { numeric: true });
const spoken = (metric) => metric.replace(".", " ");

/**
 * A measured number: four digits behind the point, as a column wants them; small and large ones with an exponent.
 * A whole number counts or names something, and keeps all its digits. Too large for a browser, it comes as text.
 */
function figure(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "string" || Number.isSafeInteger(value)) return String(value);
  return value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e4) ? value.toFixed(4) : value.toExponential(2);
}

/** A sortable table. Columns: {title, value(row), cell(row) -> text or node, right, kind, mode: "max", "min" or ""}. */
class Table {
  constructor(element, columns, rows, { opens, over, sorted }) {
    Object.assign(this, { element, columns, rows, opens, over, sorted, by: null, down: false });
    this.best = columns.map((column) => this.bestOf(column));
    const head = make("tr", {}, ...columns.map((column, at) => {
      const button = make("button", { type: "button" }, column.title);
      button.addEventListener("click", () => this.sort(at));
      return make("th", { scope: "col", class: Table.classes(column) }, button);
    }));
    this.body = make("tbody");
    this.lines = new Map(); // of the rows that were shown: a page may have thousands
    this.order = rows;
    element.replaceChildren(make("thead", {}, head), this.body);
  }

  static classes(column, best = false) {
    return [column.right ? "right" : "", column.kind ?? "", best ? "best" : ""].filter(Boolean).join(" ");
  }

  bestOf(column) {
    const values = column.mode ? this.rows.filter((row) => !column.counts || column.counts(row)).map(column.value).filter(Number.isFinite) : [];
    return new Set(values).size < 2 ? null : (column.mode === "max" ? Math.max : Math.min)(...values);
  }

  line(row) {
    const line = make("tr", { tabindex: "0" }, ...this.columns.map((column, at) => {
      const counts = !column.counts || column.counts(row);
      const best = this.best[at] !== null && counts && column.value(row) === this.best[at];
      return make("td", { class: Table.classes(column, best) }, column.cell(row));
    }));
    line.addEventListener("click", () => this.opens(row));
    line.addEventListener("keydown", (event) => { if (event.key === "Enter") this.opens(row); });
    line.addEventListener("pointerenter", () => this.over(row));
    line.addEventListener("pointerleave", () => this.over(null));
    return line;
  }

  /** The best first; again: the other way round. What has no value stays at the end. */
  sort(at) {
    const column = this.columns[at];
    this.down = this.by === at ? !this.down : column.mode === "max";
    this.by = at;
    const sign = this.down ? -1 : 1;
    const empty = (value) => value === null || value === undefined || value === "" || Number.isNaN(value);
    this.order = [...this.rows].sort((a, b) => {
      const [x, y] = [column.value(a), column.value(b)];
      if (empty(x) || empty(y)) return empty(x) - empty(y);
      if (typeof x === "number" && typeof y === "number") return sign * (x - y);
      return sign * ORDER.compare(String(x), String(y));
    });
    this.sorted();
    this.element.querySelectorAll("th").forEach((head, other) => {
      if (other === at) head.setAttribute("aria-sort", this.down ? "descending" : "ascending"); else head.removeAttribute("aria-sort");
    });
  }

  /** Show what `visible` says, at most so many; how many there are. */
  only(visible, most) {
    const left = this.order.filter(visible);
    this.body.replaceChildren(...left.slice(0, most).map((row) => {
      if (!this.lines.has(row)) this.lines.set(row, this.line(row));
      return this.lines.get(row);
    }));
    return left.length;
  }
}

/** Show at which edges of a box there is more to scroll to. */
function markEdges(box) {
  const scroll = box.firstElementChild;
  const mark = () => {
    box.classList.toggle("more-left", scroll.scrollLeft > 1);
    box.classList.toggle("more-right", scroll.scrollLeft + scroll.clientWidth < scroll.scrollWidth - 1);
  };
  scroll.addEventListener("scroll", mark, { passive: true });
  const observer = new ResizeObserver(mark);
  observer.observe(scroll);
  observer.observe(scroll.firstElementChild);
}
