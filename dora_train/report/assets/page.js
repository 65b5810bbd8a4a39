// The page: its heading, an overview of its groups, and a part for each. `page` is what page.py put there.

const page = JSON.parse(byId("data").textContent);
for (const group of page.groups) Object.assign(group, { runs: records(group.runs), settings: records(group.settings) });

function heading() {
  byId("counts").textContent = `${page.counts} · made ${page.made}`;
  byId("base").textContent = sharedText(page.base);
}

/** A line for each group: its name, its number of runs, and its best setting with its result. */
function overview(parts) {
  if (parts.length < 2) return;
  byId("overview").hidden = false;
  byId("overview").replaceChildren(...parts.map(({ data, root }, at) => {
    root.id = `group-${at + 1}`;
    const count = `${data.runs.length} ${data.runs.length === 1 ? "run" : "runs"}`;
    const link = make("a", { href: `#${root.id}` }, make("b", {}, data.name), make("span", {}, count), make("span", { class: "top" }, data.top));
    link.addEventListener("click", (event) => { event.preventDefault(); root.scrollIntoView(); });
    return link;
  }));
}

function makePart(data) {
  const root = byId("part").content.cloneNode(true).firstElementChild;
  byId("parts").append(root);
  return new Part(data, root);
}

heading();
const parts = page.groups.map(makePart);
overview(parts);
let width = null; // of the charts that were drawn
const draw = () => { width = document.body.clientWidth; parts.forEach((part) => part.draw()); };
draw();
byId("card").addEventListener("click", (event) => { if (event.target === byId("card")) byId("card").close(); });
byId("card").addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
new ResizeObserver(() => { if (document.body.clientWidth !== width) draw(); }).observe(document.body);
for (const part of parts) {
  const linked = part.data.runs.findIndex((run) => run.sig === location.hash.slice(1));
  if (linked >= 0) part.openCard(linked);
}
