// The page: tables, cards, and what ties the charts together. `report` is what page.py put there.

const report = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const COLOURS = 8;
const VERDICTS = ["best", "undecided", "worse"];
const FIRST = 10; // rows of the settings, before one asks for more
const grouped = report.settings.some((setting) => setting.runs.length > 1);
const settingOf = [];
report.settings.forEach((setting, at) => setting.runs.forEach((run) => { settingOf[run] = at; }));
let chosen = null; // the runs that the axes leave; null: all
let charts = [];
let trials = [];
let parallel = null;
let intervals = null;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value; else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

const shadeName = (setting) => setting < Math.min(COLOURS, report.settings.length) ? `c${setting}` : "";
const shade = (setting) => shadeName(setting) && colour(shadeName(setting));
const shown = (setting) => chosen === null || report.settings[setting].runs.some((run) => chosen.has(run));
const spoken = (metric) => metric.replace(".", " ");

function dot(setting) {
  const made = make("span", { class: "dot" });
  if (shadeName(setting)) made.style.background = `var(--${shadeName(setting)})`;
  return made;
}

/** Counts as they are, else four digits behind the point, as a column wants them; small and large ones with an exponent. */
function figure(value) {
  if (value === null || value === undefined) return "";
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return String(value);
  return value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e4) ? value.toFixed(4) : value.toExponential(2);
}

// --- tables ---

/** A sortable table. Columns: {title, value(row), cell(row) -> text or node, right, mode: "max", "min" or ""}. */
class Table {
  constructor(element, columns, rows, { opens, over, sorted }) {
    Object.assign(this, { element, columns, rows, opens, over, sorted, by: null, down: false });
    this.best = columns.map((column) => this.bestOf(column));
    const head = make("tr", {}, ...columns.map((column, at) => {
      const button = make("button", { type: "button" }, column.title);
      button.addEventListener("click", () => this.sort(at));
      return make("th", { scope: "col", class: column.right ? "right" : "" }, button);
    }));
    this.body = make("tbody");
    this.lines = new Map(rows.map((row) => [row, this.line(row)]));
    this.rowOf = new Map([...this.lines].map(([row, line]) => [line, row]));
    element.replaceChildren(make("thead", {}, head), this.body);
    this.fill(rows);
  }

  bestOf(column) {
    const values = column.mode ? this.rows.filter((row) => !column.counts || column.counts(row)).map(column.value).filter(Number.isFinite) : [];
    return new Set(values).size < 2 ? null : (column.mode === "max" ? Math.max : Math.min)(...values);
  }

  line(row) {
    const line = make("tr", { tabindex: "0" }, ...this.columns.map((column, at) => {
      const counts = !column.counts || column.counts(row);
      const best = this.best[at] !== null && counts && column.value(row) === this.best[at];
      return make("td", { class: [column.right ? "right" : "", best ? "best" : ""].join(" ").trim() }, column.cell(row));
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
    this.fill([...this.rows].sort((a, b) => {
      const [x, y] = [column.value(a), column.value(b)];
      if (empty(x) || empty(y)) return empty(x) - empty(y);
      if (typeof x === "number" && typeof y === "number") return sign * (x - y);
      return sign * String(x).localeCompare(String(y), undefined, { numeric: true });
    }));
    this.sorted();
    this.element.querySelectorAll("th").forEach((head, other) => {
      if (other === at) head.setAttribute("aria-sort", this.down ? "descending" : "ascending"); else head.removeAttribute("aria-sort");
    });
  }

  fill(rows) {
    this.body.replaceChildren(...rows.map((row) => this.lines.get(row)));
  }

  /** Leave what `visible` says, at most so many; how many there are. */
  only(visible, most = Infinity) {
    let count = 0;
    for (const line of this.body.children) {
      const fits = visible(this.rowOf.get(line));
      count += fits;
      line.hidden = !fits || count > most;
    }
    return count;
  }
}

function valueColumns(keys) {
  return report.parameters.filter(({ key }) => keys === null || keys.has(key)).map(({ key, title }) => ({
    title, value: (row) => row.values[key], cell: (row) => shownValue(row.values[key]),
    right: report.runs.every((run) => typeof run.values[key] === "number" || run.values[key] === ""),
  }));
}

const shownValue = (value) => typeof value === "number" ? short(value) : String(value ?? "");

function settingsTable() {
  const keys = new Set(Object.keys(report.settings[0].values));
  const main = report.compared.split(".").pop();
  const metrics = report.metrics.filter((name) => /^(best|test)\./.test(name) && name.endsWith(`.${main}`));
  const least = Math.min(2, Math.max(...report.settings.map((row) => row.n))); // one seed is not the best of many
  const columns = [
    { title: "", value: (row) => report.settings.indexOf(row), cell: (row) => dot(report.settings.indexOf(row)) },
    ...valueColumns(keys),
    { title: "n", value: (row) => row.n, cell: (row) => String(row.n), right: true },
    { title: "missing", value: (row) => row.missing, cell: (row) => row.missing },
    ...(metrics.length ? metrics : [report.compared]).filter(Boolean).flatMap((name) => [
      { title: spoken(name), right: true, mode: report.modes[name], counts: (row) => (row.metrics[name]?.[2] ?? 0) >= least, value: (row) => row.metrics[name]?.[0] ?? null, cell: (row) => spread(row.metrics[name]) },
      { title: "95%", value: (row) => row.metrics[name]?.[3] ?? null, cell: (row) => interval(row.metrics[name]) }]),
    { title: "behind", right: true, value: (row) => row.behind[0], cell: (row) => behind(row.behind) },
    { title: "verdict", value: (row) => VERDICTS.indexOf(row.verdict), cell: (row) => make("span", { class: row.verdict }, row.verdict) },
  ].filter((column) => column.title !== "missing" || report.settings.some((row) => row.missing))
    .filter((column) => column.title !== "verdict" || report.settings.some((row) => row.verdict));
  return new Table(byId("settings"), columns, report.settings, {
    sorted: choose, opens: (row) => openCard(row.runs[0]), over: (row) => highlight(row === null ? null : report.settings.indexOf(row)) });
}

function spread(summary) {
  if (!summary) return "";
  return summary[1] === null ? figure(summary[0]) : make("span", {}, figure(summary[0]), make("small", {}, ` ± ${figure(summary[1])}`));
}

const interval = (summary) => summary && summary[3] !== null ? `${figure(summary[3])} – ${figure(summary[4])}` : "";
const behind = ([difference, low, high]) => !difference ? "" : `${figure(difference)}${low === null ? "" : ` [${figure(low)}, ${figure(high)}]`}`;

function runsTable() {
  const metrics = report.metrics.filter((name) => /^(best|test)\./.test(name) && !["best.epoch", "best.step"].includes(name));
  const at = new Map(report.runs.map((run, place) => [run, place]));
  const columns = [
    { title: "run", value: (run) => run.sig, cell: (run) => make("span", { class: "sig" }, dot(settingOf[at.get(run)]), run.sig) },
    ...valueColumns(null),
    { title: "state", value: (run) => run.state, cell: (run) => make("span", { class: run.state.replace(" ", "-"), title: run.cause }, run.brief) },
    { title: "epoch", value: (run) => parseInt(run.epochs, 10), cell: (run) => run.epochs, right: true },
    ...(metrics.length ? metrics : report.metrics).map((name) => ({
      title: spoken(name), right: true, mode: report.modes[name], counts: (run) => run.finished,
      value: (run) => run.metrics[name] ?? null, cell: (run) => figure(run.metrics[name]) })),
  ];
  return new Table(byId("runs"), columns, report.runs, {
    sorted: choose, opens: (run) => openCard(at.get(run)), over: (run) => highlight(run === null ? null : settingOf[at.get(run)], run === null ? null : at.get(run)) });
}

// --- what the pointer is at ---

function highlight(setting, run = null, spot = null) {
  for (const chart of charts) chart.mark(setting, spot && spot.chart === chart ? spot.at : null);
  if (parallel) parallel.mark(run);
  for (const chart of trials) chart.mark(run);
  if (intervals) intervals.mark(setting);
  const runs = setting === null ? new Set() : new Set(run === null ? report.settings[setting].runs : [run]);
  for (const [row, line] of tables.runs.lines) line.classList.toggle("hot", runs.has(report.runs.indexOf(row)));
  if (tables.settings) for (const [row, line] of tables.settings.lines) line.classList.toggle("hot", row === report.settings[setting]);
  document.querySelectorAll(".key").forEach((key, at) => key.classList.toggle("hot", at === setting));
}

function tip(x, y, title, ...lines) {
  const box = byId("tip");
  box.hidden = title === null;
  if (title === null) return;
  box.replaceChildren(title, ...lines.map((line) => make("div", {}, line)));
  const { width, height } = box.getBoundingClientRect();
  box.style.left = `${Math.max(8, Math.min(x + 16, window.innerWidth - width - 8))}px`;
  box.style.top = `${y + 18 + height > window.innerHeight ? y - height - 12 : y + 18}px`;
}

function overCurve(setting, spot, x, y) {
  highlight(setting, null, spot);
  if (setting === null) { tip(0, 0, null); return; }
  tip(x, y, make("span", {}, dot(setting), report.settings[setting].name), spot.chart.words(setting, spot.at));
}

function overInterval(setting, x, y) {
  highlight(setting);
  if (setting === null) { tip(0, 0, null); return; }
  const { name, verdict, n, metrics, behind: [difference, low, high] } = report.settings[setting];
  const mean = metrics[report.compared], between = low === null || verdict === "best" ? "" : `, from ${figure(low)} to ${figure(high)}`;
  tip(x, y, make("span", {}, dot(setting), name), mean ? `${spoken(report.compared)} ${figure(mean[0])}, n = ${n}` : "no result",
    verdict === "best" ? "best" : difference === null ? verdict : `${verdict}: ${figure(difference)} behind${between}`);
}

function overLine(run, x, y) {
  highlight(run === null ? null : settingOf[run], run);
  if (run === null) { tip(0, 0, null); return; }
  const { sig, state, values, metrics } = report.runs[run];
  const words = report.parameters.map(({ key, title }) => `${title}=${shownValue(values[key])}`).join(" ");
  const value = metrics[report.metric];
  tip(x, y, make("span", { class: "sig" }, sig), words, `${state}${value === undefined ? "" : ` · ${spoken(report.metric)} ${figure(value)}`}`);
}

// --- a run's card ---

function openCard(at) {
  const run = report.runs[at], card = byId("card");
  const close = make("button", { class: "close", "aria-label": "close", type: "button" }, "×");
  close.addEventListener("click", () => card.close());
  card.replaceChildren(
    make("p", { class: "title" }, dot(settingOf[at]), make("span", { class: "sig" }, run.sig), make("span", { class: run.state.replace(" ", "-") }, run.state), close),
    run.cause ? make("p", { class: "cause" }, run.cause) : "",
    make("h3", {}, "To run it again"), command(run.command),
    make("h3", {}, "Metrics"), definitions(Object.entries(run.metrics).map(([name, value]) => [spoken(name), figure(value)]), "no epoch is finished yet"),
    ...confusion(run),
    make("h3", {}, "Its own values"), definitions(Object.entries(run.config), "those of all runs here", "own"),
    make("details", {}, make("summary", {}, `${Object.keys(report.common).length} values that all runs here share`), definitions(Object.entries(report.common))),
    make("h3", {}, "Where it comes from"), definitions(Object.entries(run.facts)));
  if (!card.open) card.showModal();
  card.scrollTop = 0;
  history.replaceState(null, "", `#${run.sig}`);
}

function command(text) {
  const copy = make("button", { class: "copy", type: "button" }, "copy");
  copy.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text); copy.textContent = "copied"; } catch { copy.textContent = "select it by hand"; }
  });
  return make("div", { class: "command" }, make("pre", {}, text), copy);
}

function definitions(pairs, none = "", kind = "") {
  if (!pairs.length) return make("p", { class: "note" }, none);
  return make("dl", {}, ...pairs.flatMap(([key, value]) => [make("dt", {}, key), make("dd", { class: kind }, value === "" ? "–" : String(value))]));
}

function confusion(run) {
  if (!run.confusion) return [];
  const names = report.classes[run.sig] || [], name = (at) => names[at] ?? String(at);
  const heading = make("h3", {}, "Confusion on the test set");
  if (run.confusion.most) {
    return [heading, make("p", { class: "note" }, `The most frequent, of ${run.confusion.of} images.`),
      definitions(run.confusion.most.map(([is, given, count]) => [`${name(is)} taken for ${name(given)}`, count]), "none")];
  }
  const { matrix } = run.confusion;
  const rows = matrix.map((counts, is) => {
    const total = counts.reduce((sum, count) => sum + count, 0);
    return make("tr", {}, make("th", { scope: "row", title: name(is) }, name(is)), ...counts.map((count, given) => {
      const cell = make("td", { class: is === given ? "right-class" : "", title: `${name(is)} taken for ${name(given)}: ${count} of ${total}` }, count ? String(count) : "");
      if (count) cell.style.background = `color-mix(in srgb, var(--${is === given ? "accent" : "red"}) ${Math.round(10 + 55 * count / total)}%, transparent)`;
      return cell;
    }));
  });
  const head = make("tr", {}, make("th"), ...matrix.map((_, at) => make("th", { scope: "col", title: name(at) }, name(at))));
  return [heading, make("p", { class: "note" }, "A row is what it is, a column what it was taken for."),
    make("div", { class: "scroll" }, make("table", { class: "matrix" }, make("thead", {}, head), make("tbody", {}, ...rows)))];
}

// --- putting it together ---

function heading() {
  byId("counts").textContent = `${report.runs.length} ${report.runs.length === 1 ? "run" : "runs"} · ${report.counts} · ${report.made}`;
  byId("base").textContent = Object.entries(report.base).map(([key, value]) => `${key}=${value}`).join(" ");
  byId("verdict").textContent = report.conclusion;
  byId("remarks").textContent = report.remarks.join(" ");
  if (!report.additions.length) return;
  const [summary, ...lines] = report.additions;
  byId("additions").hidden = false;
  byId("additions").append(make("summary", {}, summary), lines.length ? command(lines.join("\n")) : "");
}

function drawIntervals() {
  if (!report.settings.some((setting) => setting.verdict !== "best" && setting.behind[1] !== null)) return;
  byId("intervals-part").hidden = false;
  byId("intervals-title").textContent = `How far behind the best, in ${spoken(report.compared)}`;
  intervals = new Intervals(report.settings, overInterval);
  byId("intervals").replaceChildren(...intervals.nodes);
}

function drawCurves() {
  const names = Object.keys(report.curves);
  if (!names.length) return;
  byId("curves-section").hidden = false;
  const thinned = report.stride > 1 ? ` Every ${report.stride}. ${report.axis} is drawn.` : "";
  const many = report.settings.length > COLOURS ? ` The best ${COLOURS} are in colour.` : "";
  byId("curves-note").textContent = (grouped ? `A line is the mean of a setting's runs, its band reaches from the lowest to the highest.` : "A line is a run.") + many + thinned;
  charts = names.map((name) => new Curves(name, report.curves[name], report.stride, { shade, shown }, overCurve, report.axis));
  byId("curves").replaceChildren(...charts.map((chart) => chart.figure));
  if (report.settings.length < 2) return;
  byId("legend").replaceChildren(...report.settings.slice(0, COLOURS).map((setting, at) => {
    const key = make("button", { class: "key", type: "button" }, dot(at), setting.name);
    key.addEventListener("pointerenter", () => highlight(at));
    key.addEventListener("focus", () => highlight(at));
    for (const end of ["pointerleave", "blur"]) key.addEventListener(end, () => highlight(null));
    return key;
  }));
}

function drawTrials() {
  byId("trials-section").hidden = !report.searches.length;
  trials = report.searches.map((search) => new Trials(search, (run) => report.runs[run].finished, overLine, openCard));
  byId("trials").replaceChildren(...trials.map((chart) => chart.figure));
}

function drawParallel() {
  const axes = report.parameters.filter(({ key }) => !report.over.includes(key)).slice(0, 14).map(({ key, title }) => ({ title, values: report.runs.map((run) => run.values[key]) }));
  if (report.runs.length < 2 || !axes.length || !report.metric) return;
  byId("parallel-section").hidden = false;
  byId("parallel-note").textContent = "A line is a run, the darker the better; dashed: no result. Drag along an axis to choose, click it to let go.";
  if (matchMedia("(prefers-color-scheme: dark)").matches) byId("parallel-note").textContent = byId("parallel-note").textContent.replace("darker", "brighter");
  const values = report.runs.map((run) => run.metrics[report.metric] ?? null);
  const known = values.filter((value) => value !== null).sort((a, b) => a - b);
  const good = values.map((value) => {
    if (value === null) return null;
    const share = known.length < 2 ? 1 : known.indexOf(value) / (known.length - 1);
    return report.modes[report.metric] === "min" ? 1 - share : share;
  });
  parallel = new Parallel(byId("parallel"), [...axes, { title: spoken(report.metric), values }], good, overLine, (runs) => { chosen = runs; choose(); });
}

/** Show what the axes and the words leave. */
function choose() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (run) => `${run.sig} ${run.state} ${run.cause} ${report.parameters.map(({ key, title }) => `${title}=${run.values[key]} ${key}=${run.values[key]}`).join(" ")} `.toLowerCase();
  const count = tables.runs.only((run) => (chosen === null || chosen.has(report.runs.indexOf(run))) && words.every((word) => text(run).includes(word)));
  byId("shown").textContent = count === report.runs.length ? "" : `${count} of ${report.runs.length}`;
  if (tables.settings) limitSettings();
  charts.forEach((chart) => chart.draw());
}

/** The first settings, and a button for the others. */
function limitSettings() {
  const more = byId("settings-more");
  const most = more.dataset.all ? Infinity : FIRST;
  const count = tables.settings.only((setting) => shown(report.settings.indexOf(setting)), most);
  if (intervals) intervals.only(shown, most);
  more.hidden = Boolean(more.dataset.all) || count <= FIRST;
  more.textContent = `all ${count} settings`;
}

function draw() {
  trials.forEach((chart) => chart.draw());
  charts.forEach((chart) => chart.draw());
  if (parallel) parallel.draw();
}

heading();
const tables = { runs: runsTable(), settings: grouped ? settingsTable() : null };
if (grouped) {
  byId("settings-section").hidden = false;
  drawIntervals();
}
byId("settings-more").addEventListener("click", () => { byId("settings-more").dataset.all = "yes"; limitSettings(); });
drawTrials();
drawCurves();
drawParallel();
if (tables.settings) limitSettings();
draw();
byId("filter").addEventListener("input", choose);
byId("card").addEventListener("click", (event) => { if (event.target === byId("card")) byId("card").close(); });
byId("card").addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
new ResizeObserver(draw).observe(document.body);
const linked = report.runs.findIndex((run) => run.sig === location.hash.slice(1));
if (linked >= 0) openCard(linked);
