// The page: what is asked for stands in its address, so that reloading and going back show it again.

import { Refused, ask, choose, counted, element, secondsOf } from "./api.js";
import { Clusters, Duplicates } from "./findings.js";
import { Grid, allTiles, focusedTile, setMarks } from "./grid.js";
import { Labels } from "./labels.js";
import { SpanMap } from "./map.js";
import { Player } from "./player.js";

const PAGE = 60;
const TIMES = ["shortest", "longest", "after", "before"];
const FILTERS = ["folder", "label", "mark", ...TIMES, "cluster", "map", "lasso"];
const USUAL = { order: "listed", view: "grid" }; // what the address leaves out
const KEPT = "other_files"; // a choice that stays while the page is open, also if all spans are shown
const SCORES = { like: "cosine similarity", stretch: "cosine similarity", outliers: "distance from the nearest others", unsure: "doubt of the probe" };
const isNarrow = matchMedia("(max-width: 56rem)"); // the player is above the results, not beside them
const VIEWS = ["grid", "map", "clusters", "duplicates"];
const find = (selector) => document.querySelector(selector);
const form = find("#filters"), message = find("#message");
const ORDERS = [["listed", "as listed"], ["suggested", "to label next"], ["outliers", "unlike any others"]];
const orders = new Map(ORDERS);
let state = {}, collection = null, asked = null, loading = null, views = {};

const grid = new Grid(find("#grid"), { onChoose: (span) => searchLike(span) });
const player = new Player(find("#player"), {
  onLike: searchLike,
  onStretch: (span, { from, to }) => go({ order: `stretch:${span.row}:${from.toFixed(3)}:${to.toFixed(3)}` }),
  onClose: () => grid.setOpen(null),
});
const labels = new Labels(find("#labels"), {
  rowsShown: () => allTiles().map((tile) => tile.span.row),
  onAnswer: () => { message.hidden = true; },
  onClasses: () => { if (collection) showChoices(); },
  onAdded: () => grid.focusVisible(),
  onMarks: (marks) => { setMarks(marks); views.map?.newMarks(); },
  onChoose: (name) => giveLabel(name),
  onTrained: showAnswers,
  onError: report,
});

function report(error, { scrolls = true } = {}) {
  if (error.name === "AbortError") return;
  message.hidden = false;
  if (scrolls) message.scrollIntoView({ block: "nearest" });
  message.textContent = error instanceof Refused ? error.message : `The server does not answer (${error.message}). Is v3s serve running?`;
}

function searchLike(span) {
  openPlayer(span);
  go({ order: `like:${span.row}`, view: state.view === "duplicates" ? "grid" : state.view });
}

function openPlayer(span) {
  player.open(span);
  find("#player").scrollIntoView({ block: isNarrow.matches ? "start" : "nearest" });
  grid.setOpen(span.row);
}

function readAddress() {
  const values = new URLSearchParams(location.search);
  const found = { order: values.get("order") ?? "listed", view: VIEWS.includes(values.get("view")) ? values.get("view") : "grid" };
  for (const name of [...FILTERS, KEPT]) if (values.has(name)) found[name] = values.get(name);
  return found;
}

function go(changes) {
  state = { ...state, ...changes };
  for (const name of Object.keys(state)) if (state[name] === null) delete state[name];
  const query = new URLSearchParams(Object.entries(state).filter(([name, value]) => value !== USUAL[name]));
  history.pushState(null, "", query.size ? `?${query}` : location.pathname);
  show();
}

async function show() {
  asked?.abort();
  asked = new AbortController();
  const { signal } = asked;
  message.hidden = true;
  grid.clear();
  find("#more").hidden = true;
  showForm();
  for (const name of TIMES) form.elements[name].value = state[name] ?? ""; // only here: a label that comes must not replace what is typed
  showView();
  const top = find(isNarrow.matches && player.isOpen ? "#player" : "#results");
  if (top.getBoundingClientRect().top < 0) top.scrollIntoView();
  if (state.view !== "duplicates") await showMore(signal);
}

function showView() {
  for (const button of document.querySelectorAll("nav [data-view]")) button.setAttribute("aria-pressed", button.dataset.view === state.view);
  for (const name of ["map", "clusters", "duplicates"]) find(`#${name}`).hidden = state.view !== name;
  find("#results").hidden = find("#filters").hidden = state.view === "duplicates";
  if (state.view === "map") views.map.show(state.map ?? "pca", state.lasso);
  if (state.view === "clusters") views.clusters.show(state.cluster);
  if (state.view === "duplicates") views.duplicates.show();
}

async function showMore(signal) {
  if (loading === signal) return; // the button and the end of the page both ask
  loading = signal;
  try {
    const { view, ...wanted } = state;
    if ("mark" in wanted) await labels.sent; // the server no longer counts the spans that got another label since they were shown
    const before = grid.tiles.filter(({ span }) => !("mark" in wanted) || (span.mark ?? "") === wanted.mark);
    const found = await ask("/api/spans", { ...wanted, offset: before.length, limit: PAGE }, signal);
    if (!grid.tiles.length) {
      const kind = collection.whole_files ? "video" : "span";
      const cluster = "cluster" in wanted ? ` of cluster ${Number(wanted.cluster) + 1}` : "";
      find("#caption").textContent = `${counted(found.num_chosen, kind)}${cluster}, ${found.caption}${numbersOf(state.order)}`;
      if (!orders.has(state.order) && !state.order.startsWith("suggested")) { orders.set(state.order, found.caption); showForm(); }
    }
    grid.add(found.spans, collection.whole_files);
    grid.setOpen(player.span?.row ?? null);
    find("#more").hidden = found.spans.length < PAGE;
  } catch (error) {
    if (!grid.tiles.length && error instanceof Refused) find("#caption").textContent = ""; // which is still that of what was shown before
    report(error);
  }
  if (loading === signal) loading = null;
}

function numbersOf(order) { // what the numbers on the tiles are
  const name = SCORES[order.split(":")[0]];
  return name ? `; numbers: ${name}` : "";
}

const searches = (order) => /^(like|stretch):/.test(order);

function option(value, text) { return element("option", { value, textContent: text }); }

function showForm() {
  const order = form.elements.order;
  order.replaceChildren(...[...orders].map(([value, text]) => option(value, text)));
  if (!orders.has(state.order) && !state.order.startsWith("suggested")) order.append(option(state.order, "…"));
  order.value = state.order.startsWith("suggested") ? "suggested" : state.order;
  choose(form.elements.folder, state.folder ?? "");
  const [kind, chosen] = state.mark !== undefined ? ["mark:", state.mark] : state.label !== undefined ? ["label:", state.label] : ["", ""];
  choose(form.elements.label, kind + chosen, chosen);
  form.elements[KEPT].checked = state[KEPT] === "1";
  form.elements[KEPT].closest("label").hidden = !searches(state.order) || collection.num_files < 2 || collection.whole_files;
  find("#clear").hidden = !FILTERS.some((name) => name in state && name !== "map") && state.order === "listed";
}

function showChoices() {
  const named = (each) => option(each.number, `${each.name || "(top)"} (${each.count})`);
  form.elements.folder.replaceChildren(option("", "all"), ...collection.folders.map(named));
  form.elements.folder.closest("label").hidden = collection.folders.length < 2;
  const marks = [option("mark:", "without a label"), ...labels.names.map((name) => option(`mark:${name}`, name))];
  const listed = collection.labels.map((each) => option(`label:${each.number}`, `${each.name} (${each.count})`));
  const groups = [element("optgroup", { label: "Given here" }, ...marks)];
  if (listed.length) groups.push(element("optgroup", { label: "Of the data" }, ...listed));
  form.elements.label.replaceChildren(option("", "all"), ...groups);
  if (state.order) showForm();
}

function showAnswers(classes) {
  for (const name of [...orders.keys()]) if (/^(answer|unsure)/.test(name)) orders.delete(name);
  classes.forEach((name, number) => orders.set(`answer:${number}`, `probability of ${name}`));
  orders.set("unsure", "where the probe is least sure");
  showChoices();
  go({ order: "answer:0" });
}

async function giveLabel(name, { byKey = false } = {}) {
  const tile = focusedTile() ?? (byKey && player.isOpen ? grid.tileOf(player.span) : null), span = tile?.span ?? player.span;
  if (!span) { report(new Refused("Choose a span first: go to it with the arrow keys, or open it in the player.")); return; }
  if (byKey && tile) grid.next(tile); // at once: the next key is for the next span
  await labels.give(span, name);
}

for (const place of [form, find("#found")]) place.addEventListener("change", () => {
  const values = form.elements, text = values.label.value, times = {};
  for (const name of TIMES) {
    const written = values[name].value.trim();
    times[name] = written === "" ? null : secondsOf(written);
    if (written !== "" && times[name] === null) { report(new Refused(`"${written}" is not a time: write 754.5, 12:34.5 or 0:12:34.5.`)); return; }
  }
  go({
    ...times,
    order: values.order.value === "suggested" ? `suggested:${labels.version}` : values.order.value,
    folder: values.folder.value === "" ? null : values.folder.value,
    label: text.startsWith("label:") ? text.slice(6) : null,
    mark: text.startsWith("mark:") ? text.slice(5) : null,
    [KEPT]: values[KEPT].checked ? "1" : null,
  });
});
form.addEventListener("submit", (event) => event.preventDefault());
find("#clear").addEventListener("click", () => go(Object.fromEntries([["order", "listed"], ...FILTERS.map((name) => [name, null])])));
find("#more").addEventListener("click", () => showMore(asked.signal));
find("#help-button").addEventListener("click", () => find("#help").showModal());
addEventListener("beforeunload", (event) => { if (labels.numUnsent) event.preventDefault(); }); // the browser asks whether to leave
addEventListener("popstate", () => { state = readAddress(); show(); });

new IntersectionObserver((entries) => { if (entries[0].isIntersecting && !find("#more").hidden) showMore(asked.signal); }, { rootMargin: "600px" }).observe(find("#more"));

const KEYS = {
  "?": () => find("#help").showModal(),
  n: () => { const input = find("#new-class input"); input.focus(); input.select(); }, // what was refused is replaced
  t: () => labels.train(),
  u: () => labels.undoLast(),
  0: () => giveLabel(null, { byKey: true }),
  p: () => focusedTile() && openPlayer(focusedTile().span),
  i: () => player.isOpen && player.actions.from(),
  o: () => player.isOpen && player.actions.to(),
  s: () => player.isOpen && player.actions.search(),
  " ": () => player.isOpen && player.actions.play(),
  Escape: () => player.isOpen && player.actions.close(),
};

addEventListener("keydown", (event) => {
  if (event.key.startsWith("Arrow") && document.activeElement === document.body && grid.focusVisible()) event.preventDefault();
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=range]), select") || find("#help").open) return;
  if (event.key === " " && event.target.matches("button:not(.tile), summary")) return;
  const place = "123456789".indexOf(event.key);
  const action = place >= 0 && event.key.length === 1 ? () => labels.names[place] && giveLabel(labels.names[place], { byKey: true }) : KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  if (!event.repeat || /^[\du]$/.test(event.key)) action(); // held down, only labels go on
});

function chooseCluster(cluster) {
  go({ cluster });
  reveal("#results");
}

function reveal(selector) { // on a phone the player may stand before it
  if (find(selector).getBoundingClientRect().top > 0.7 * innerHeight) find(selector).scrollIntoView();
}

function makeViews() {
  const colourings = [["cluster", "clusters"], ["mark", "labels given here"], ["", "none"]];
  if (collection.labels.length) colourings.splice(0, 0, ["label", "labels of the data"]);
  const open = async (row) => { try { openPlayer(await ask(`/api/spans/${row}`)); } catch (error) { report(error); } };
  const namesOf = (by, number) => (by === "cluster" ? `Cluster ${number + 1}` : by === "mark" ? labels.names[number] : collection.labels.find((each) => each.number === number)?.name ?? "");
  views = {
    map: new SpanMap(find("#map"), { colourings, namesOf, onError: report, onChoose: open, onLasso: (map, lasso) => go({ map, lasso }) }),
    clusters: new Clusters(find("#clusters"), { onError: report, onChoose: chooseCluster }),
    duplicates: new Duplicates(find("#duplicates"), { onError: report, onChoose: openPlayer, wholeFiles: collection.whole_files }),
  };
  for (const button of document.querySelectorAll("nav [data-view]")) button.addEventListener("click", () => {
    go({ view: button.dataset.view });
    reveal(button.dataset.view === "grid" ? "#results" : `#${button.dataset.view}`);
  });
}

async function start() {
  try {
    const found = await ask("/api/collection");
    collection = found;
    player.allowSearch(!collection.whole_files);
    makeViews();
    state = readAddress();
    const showing = show(); // which hides messages
    labels.take(found);
    await showing;
  } catch (error) { report(error); }
}

start();
