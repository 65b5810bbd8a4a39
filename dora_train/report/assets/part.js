// One group of runs that can be compared: its tables and charts, and what ties them together.

const COLOURS = 8;
const VERDICTS = ["best", "undecided", "worse"];
const FIRST = { settings: 10, runs: 20 }; // rows of a table, before one asks for more
const MORE = 1000; // rows that one gets at once
const AXES = 8; // of the parallel coordinates, before one asks for more

class Part {
  /** @param data what page.py put there for this group; @param root an <article> of the template */
  constructor(data, root) {
    Object.assign(this, { data, root, most: { ...FIRST }, texts: new Map(), chosen: null, charts: [], trials: [], parallel: null, intervals: null });
    this.find = (name) => root.querySelector(`.${name}`);
    this.grouped = data.settings.some((setting) => setting.runs.length > 1);
    this.settingOf = [];
    data.settings.forEach((setting, at) => setting.runs.forEach((run) => { this.settingOf[run] = at; }));
    this.at = new Map(data.runs.map((run, place) => [run, place]));
    this.settingAt = new Map(data.settings.map((setting, place) => [setting, place]));
    this.heading();
    this.tables = { runs: this.runsTable(), settings: this.grouped ? this.settingsTable() : null };
    if (this.grouped) {
      this.find("settings-section").hidden = false;
      this.drawIntervals();
    }
    this.drawTrials();
    this.drawCurves();
    this.drawParallel(AXES);
    for (const name of ["settings", "runs"]) {
      this.find(`${name}-more`).addEventListener("click", () => { this.most[name] += MORE; this.limit(); });
    }
    this.find("parallel-more").addEventListener("click", () => { this.drawParallel(Infinity); this.draw(); });
    this.find("filter").addEventListener("input", () => this.limit());
    root.querySelectorAll(".wide").forEach(markEdges);
    this.limit();
  }

  // --- colours ---

  shadeName(setting) { return setting < Math.min(COLOURS, this.data.settings.length) ? `c${setting}` : ""; }
  shade(setting) { return this.shadeName(setting) && colour(this.shadeName(setting)); }
  shown(setting) { return this.chosen === null || this.data.settings[setting].runs.some((run) => this.chosen.has(run)); }

  dot(setting) {
    const made = make("span", { class: "dot" });
    if (this.shadeName(setting)) made.style.background = `var(--${this.shadeName(setting)})`;
    return made;
  }

  // --- tables ---

  valueColumns(keys) {
    return this.data.parameters.filter(({ key }) => keys === null || keys.has(key)).map(({ key, title, numeric }) => ({
      title, right: numeric, value: (row) => numeric && row.values[key] !== "" ? Number(row.values[key]) : row.values[key],
      cell: (row) => row.values[key] ?? "",
    }));
  }

  settingsTable() {
    const { data } = this, { settings, compared } = data, place = new Map(settings.map((row, at) => [row, at]));
    const main = compared.split(".").pop();
    const others = data.metrics.filter((name) => name !== compared && /^(best|test)\./.test(name) && name.endsWith(`.${main}`));
    const least = Math.min(2, Math.max(...settings.map((row) => row.n))); // one seed is not the best of many
    const mean = (name) => ({ title: spoken(name), right: true, mode: data.modes[name], counts: (row) => (row.metrics[name]?.[2] ?? 0) >= least,
      value: (row) => row.metrics[name]?.[0] ?? null, cell: (row) => spread(row.metrics[name]) });
    const range = (name) => ({ title: "95%", value: (row) => row.metrics[name]?.[3] ?? null, cell: (row) => interval(row.metrics[name]) });
    const columns = [
      { title: "setting", kind: "fixed", value: (row) => place.get(row), cell: (row) => make("span", { class: "label" }, this.dot(place.get(row)), row.name) },
      ...(compared ? [mean(compared)] : []),
      { title: "verdict", value: (row) => VERDICTS.indexOf(row.verdict), cell: (row) => make("span", { class: row.verdict }, row.verdict) },
      { title: "behind", right: true, value: (row) => row.behind[0], cell: (row) => behind(row.behind) },
      { title: "n", value: (row) => row.n, cell: (row) => String(row.n), right: true },
      { title: "missing", value: (row) => row.missing, cell: (row) => row.missing },
      ...(compared ? [range(compared)] : []),
      ...this.valueColumns(new Set(Object.keys(settings[0].values))),
      ...others.flatMap((name) => [mean(name), range(name)]),
    ].filter(({ title }) => title !== "missing" || settings.some((row) => row.missing))
      .filter(({ title }) => title !== "verdict" || settings.some((row) => row.verdict));
    return new Table(this.find("settings"), columns, settings, {
      sorted: () => this.limit(), opens: (row) => this.openCard(row.runs[0]), over: (row) => this.highlight(row === null ? null : place.get(row)) });
  }

  runsTable() {
    const { data } = this, main = data.main.filter(Boolean);
    const others = data.metrics.filter((name) => !main.includes(name) && /^(best|test)\./.test(name) && !["best.epoch", "best.step"].includes(name));
    const metric = (name) => ({ title: spoken(name), right: true, mode: data.modes[name], counts: (run) => run.finished,
      value: (run) => run.metrics[name] ?? null, cell: (run) => figure(run.metrics[name]) });
    const columns = [
      { title: "run", kind: "fixed", value: (run) => run.sig, cell: (run) => this.runName(run) },
      ...(main.length ? main : data.metrics).map(metric),
      { title: "state", value: (run) => run.state, cell: (run) => make("span", { class: run.state.replace(" ", "-"), title: run.cause }, run.brief) },
      { title: "when", value: (run) => run.started, cell: (run) => run.when, mode: "max" },
      { title: "took", value: (run) => run.took, cell: (run) => run.duration, right: true },
      ...this.valueColumns(null),
      { title: "epoch", value: (run) => parseInt(run.epochs, 10), cell: (run) => run.epochs, right: true },
      ...(main.length ? others : []).map(metric),
    ];
    columns.find(({ title }) => title === "when").counts = () => false; // the newest is not the best
    return new Table(this.find("runs"), columns, data.runs, {
      sorted: () => this.limit(), opens: (run) => this.openCard(this.at.get(run)),
      over: (run) => this.highlight(run === null ? null : this.settingOf[this.at.get(run)], run === null ? null : this.at.get(run)) });
  }

  /** The signature, the name of its setting, and its seed if the setting has several. */
  runName(run) {
    const at = this.settingOf[this.at.get(run)], setting = this.data.settings[at], seeds = this.data.over.map((key) => `${key}=${run.values[key]}`);
    const words = setting.runs.length > 1 ? [setting.name, ...seeds] : [setting.name];
    return make("span", { class: "label" }, this.dot(at), make("span", { class: "sig" }, run.sig), make("small", {}, ` ${words.join(" ")}`));
  }

  // --- what the pointer is at ---

  highlight(setting, run = null, spot = null) {
    for (const chart of this.charts) chart.mark(setting, spot && spot.chart === chart ? spot.at : null);
    if (this.parallel) this.parallel.mark(run);
    for (const chart of this.trials) chart.mark(run);
    if (this.intervals) this.intervals.mark(setting);
    const runs = setting === null ? new Set() : new Set(run === null ? this.data.settings[setting].runs : [run]);
    for (const [row, line] of this.tables.runs.lines) line.classList.toggle("hot", runs.has(this.at.get(row)));
    if (this.tables.settings) for (const [row, line] of this.tables.settings.lines) line.classList.toggle("hot", row === this.data.settings[setting]);
    this.root.querySelectorAll(".key").forEach((key, at) => key.classList.toggle("hot", at === setting));
  }

  overCurve(setting, spot, x, y) {
    this.highlight(setting, null, spot);
    if (setting === null) { tip(0, 0, null); return; }
    tip(x, y, make("span", {}, this.dot(setting), this.data.settings[setting].name), spot.chart.words(setting, spot.at));
  }

  overInterval(setting, x, y) {
    this.highlight(setting);
    if (setting === null) { tip(0, 0, null); return; }
    const { name, verdict, n, metrics, behind: [difference, low, high] } = this.data.settings[setting], { compared } = this.data;
    const mean = metrics[compared], between = low === null || verdict === "best" ? "" : `, from ${figure(low)} to ${figure(high)}`;
    tip(x, y, make("span", {}, this.dot(setting), name), mean ? `${spoken(compared)} ${figure(mean[0])}, n = ${n}` : "no result",
      verdict === "best" ? "best" : difference === null ? verdict : `${verdict}: ${figure(difference)} behind${between}`);
  }

  overLine(run, x, y) {
    this.highlight(run === null ? null : this.settingOf[run], run);
    if (run === null) { tip(0, 0, null); return; }
    const { sig, state, values, metrics } = this.data.runs[run];
    const words = this.data.parameters.filter(({ key }) => values[key] !== "").map(({ key, title }) => `${title}=${values[key]}`).join(" ");
    const value = metrics[this.data.metric];
    tip(x, y, make("span", { class: "sig" }, sig), words, `${state}${value === undefined ? "" : ` · ${spoken(this.data.metric)} ${figure(value)}`}`);
  }

  openCard(at) { showCard(this.data, this.data.runs[at], this.dot(this.settingOf[at])); }

  // --- putting it together ---

  heading() {
    const { data } = this;
    this.find("name").hidden = !data.name;
    this.find("name").textContent = data.name;
    this.find("base").textContent = sharedText(data.base);
    this.find("left-out").textContent = data.left_out;
    this.find("verdict").textContent = data.conclusion;
    this.find("remarks").textContent = data.remarks.join(" ");
    if (!data.additions.length) return;
    const [summary, ...lines] = data.additions;
    this.find("additions").hidden = false;
    this.find("additions").append(make("summary", {}, summary), lines.length ? command(lines.join("\n")) : "");
  }

  drawIntervals() {
    const { settings, compared } = this.data;
    if (!settings.some((setting) => setting.verdict !== "best" && setting.behind[1] !== null)) return;
    this.find("intervals-part").hidden = false;
    this.find("intervals-title").textContent = `How far behind the best, in ${spoken(compared)}`;
    this.intervals = new Intervals(this.find("intervals"), settings, (...what) => this.overInterval(...what));
  }

  drawCurves() {
    const { data } = this, names = Object.keys(data.curves);
    if (!names.length) return;
    this.find("curves-section").hidden = false;
    const thinned = data.stride > 1 ? ` Every ${data.stride}. ${data.axis} is drawn, or the next one with a value.` : "";
    const many = data.settings.length > COLOURS ? ` The best ${COLOURS} are in colour.` : "";
    this.find("curves-note").textContent = (this.grouped ? `A line is the mean of a setting's runs, its band reaches from the lowest to the highest.` : "A line is a run.") + many + thinned;
    const ask = { shade: (setting) => this.shade(setting), shown: (setting) => this.shown(setting) };
    this.charts = names.map((name) => new Curves(name, data.curves[name], data.stride, ask, (...what) => this.overCurve(...what), data.axis));
    this.find("curves").replaceChildren(...this.charts.map((chart) => chart.figure));
    if (data.settings.length < 2) return;
    this.find("legend").replaceChildren(...data.settings.slice(0, COLOURS).map((setting, at) => {
      const key = make("button", { class: "key", type: "button" }, this.dot(at), setting.name);
      key.addEventListener("pointerenter", () => this.highlight(at));
      key.addEventListener("focus", () => this.highlight(at));
      for (const end of ["pointerleave", "blur"]) key.addEventListener(end, () => this.highlight(null));
      return key;
    }));
  }

  drawTrials() {
    const { searches, runs } = this.data;
    this.find("trials-section").hidden = !searches.length;
    this.trials = searches.map((search) => new Trials(search, (run) => runs[run].finished, (...what) => this.overLine(...what), (run) => this.openCard(run)));
    this.find("trials").replaceChildren(...this.trials.map((chart) => chart.figure));
  }

  drawParallel(most) {
    const { data } = this, keys = data.parameters.filter(({ key }) => !data.over.includes(key));
    if (data.runs.length < 2 || !keys.length || !data.metric) return;
    const axes = keys.slice(0, most).map(({ key, title, numeric }) => ({ title, numeric, values: data.runs.map((run) => run.values[key]) }));
    const more = this.find("parallel-more"), dark = matchMedia("(prefers-color-scheme: dark)").matches;
    more.hidden = keys.length <= most;
    more.textContent = `all ${keys.length} parameters`;
    this.find("parallel-section").hidden = false;
    this.find("parallel-note").textContent = `A line is a run, the ${dark ? "brighter" : "darker"} the better; dashed: no result. Drag along an axis to choose, click it to let go.`;
    const values = data.runs.map((run) => run.metrics[data.metric] ?? null);
    const known = values.filter((value) => value !== null).sort((a, b) => a - b);
    const first = new Map(known.map((value, at) => [value, at]).reverse()); // of equal values
    const good = values.map((value) => {
      if (value === null) return null;
      const share = known.length < 2 ? 1 : first.get(value) / (known.length - 1);
      return data.modes[data.metric] === "min" ? 1 - share : share;
    });
    const choose = (runs) => { this.chosen = runs; this.choose(); };
    this.find("parallel").replaceChildren();
    this.parallel = new Parallel(this.find("parallel"), [...axes, { title: spoken(data.metric), numeric: true, values }], good, (...what) => this.overLine(...what), choose);
  }

  /** Show what the axes leave. */
  choose() {
    this.limit();
    this.charts.forEach((chart) => chart.draw());
  }

  /** What one can find a run by, in small letters. */
  text(run) {
    if (!this.texts.has(run)) {
      const values = this.data.parameters.map(({ key, title }) => `${title}=${run.values[key]} ${key}=${run.values[key]}`).join(" ");
      this.texts.set(run, `${run.sig} ${run.state} ${run.cause} ${values} `.toLowerCase());
    }
    return this.texts.get(run);
  }

  /** The first rows that are left, and a button for the others. */
  limit() {
    const { data } = this, words = this.find("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const left = (run) => (this.chosen === null || this.chosen.has(this.at.get(run))) && words.every((word) => this.text(run).includes(word));
    const count = this.atMost("runs", left);
    this.find("shown").textContent = count === data.runs.length ? "" : `${count} of ${data.runs.length}`;
    if (!this.tables.settings) return;
    this.atMost("settings", (setting) => this.shown(this.settingAt.get(setting)));
    if (this.intervals) this.intervals.only((at) => this.shown(at), this.most.settings);
  }

  /** Show the first rows of a table that are left, and say how many there are. */
  atMost(name, left) {
    const more = this.find(`${name}-more`), count = this.tables[name].only(left, this.most[name]);
    more.hidden = count <= this.most[name];
    more.textContent = count <= this.most[name] + MORE ? `all ${count} ${name}` : `${MORE} more of ${count} ${name}`;
    return count;
  }

  draw() {
    this.trials.forEach((chart) => chart.draw());
    this.charts.forEach((chart) => chart.draw());
    if (this.parallel) this.parallel.draw();
  }
}

function spread(summary) {
  if (!summary) return "";
  return summary[1] === null ? figure(summary[0]) : make("span", {}, figure(summary[0]), make("small", {}, ` ± ${figure(summary[1])}`));
}

const interval = (summary) => summary && summary[3] !== null ? `${figure(summary[3])} – ${figure(summary[4])}` : "";
const behind = ([difference, low, high]) => !difference ? "" : `${figure(difference)}${low === null ? "" : ` [${figure(low)}, ${figure(high)}]`}`;
const sharedText = (values) => Object.keys(values).length ? `all: ${Object.entries(values).map(([key, value]) => `${key}=${value}`).join(" ")}` : "";
