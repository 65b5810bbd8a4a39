// The card of a run, what the pointer is at, and texts to copy.

function tip(x, y, title, ...lines) {
  const box = byId("tip");
  box.hidden = title === null;
  if (title === null) return;
  box.replaceChildren(title, ...lines.map((line) => make("div", {}, line)));
  const { width, height } = box.getBoundingClientRect();
  box.style.left = `${Math.max(8, Math.min(x + 16, window.innerWidth - width - 8))}px`;
  box.style.top = `${y + 18 + height > window.innerHeight ? y - height - 12 : y + 18}px`;
}

/** @param part the group that the run is in; @param dot an element in the colour of its setting */
function showCard(part, run, dot) {
  const card = byId("card");
  const close = make("button", { class: "close", "aria-label": "close", type: "button" }, "×");
  close.addEventListener("click", () => card.close());
  card.replaceChildren(
    make("p", { class: "title" }, dot, make("span", { class: "sig" }, run.sig), make("span", { class: run.state.replace(" ", "-") }, run.state), close),
    run.cause ? make("p", { class: "cause" }, run.cause) : "",
    make("h3", {}, "To run it again"), command(run.command),
    make("h3", {}, "Metrics"), definitions(Object.entries(run.metrics).map(([name, value]) => [spoken(name), figure(value)]), "no epoch is finished yet"),
    ...confusion(part, run),
    make("h3", {}, "Its own values"), definitions(Object.entries(run.config), "those of all runs here", "own"),
    make("details", {}, make("summary", {}, `${Object.keys(part.common).length} values that all runs here share`), definitions(Object.entries(part.common))),
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

function confusion(part, run) {
  if (!run.confusion) return [];
  const names = part.classes[run.sig] || [], name = (at) => names[at] ?? String(at);
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
