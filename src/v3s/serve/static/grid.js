// The spans as tiles: each shows a picture, plays when the pointer or the focus is on it, and is reached by the arrow keys.

import { element, media, reasonOf, shortTime, timeText } from "./api.js";
import { forget, makePicture } from "./pictures.js";

const HOVER_MS = 120;

export class Grid {
  constructor(list, { onChoose }) {
    this.list = list;
    this.onChoose = onChoose;
    this.tiles = [];
    list.addEventListener("click", (event) => {
      const tile = event.target.closest(".tile");
      if (tile) this.onChoose(tile.span);
    });
    for (const [type, start] of [["pointerover", true], ["focusin", true], ["pointerout", false], ["focusout", false]]) {
      list.addEventListener(type, (event) => this.turn(event, start));
    }
    list.addEventListener("keydown", (event) => this.move(event));
  }

  clear() {
    for (const tile of this.tiles) { // so that pictures on their way do not delay the answer
      stop(tile);
      const picture = tile.querySelector("img");
      if (picture) forget(picture);
    }
    this.tiles = [];
    this.list.replaceChildren();
  }

  add(spans, wholeFiles) {
    const items = spans.map((span) => {
      const tile = makeTile(span, wholeFiles);
      tile.tabIndex = this.tiles.length ? -1 : 0;
      this.tiles.push(tile);
      return element("li", {}, tile);
    });
    this.list.append(...items);
  }

  tileOf(span) { return this.tiles.find((tile) => tile.span.row === span.row) ?? null; }

  focus(tile) {
    for (const each of this.tiles) each.tabIndex = each === tile ? 0 : -1;
    tile.focus();
    tile.scrollIntoView({ block: "nearest" });
  }

  focusVisible() { // the first tile that can be seen, unless one has the focus; whether there is one
    const seen = focusedTile() ?? this.tiles.find((tile) => tile.getBoundingClientRect().top >= 0);
    if (seen) this.focus(seen);
    return Boolean(seen);
  }

  next(tile) {
    const after = this.tiles[this.tiles.indexOf(tile) + 1];
    if (after) this.focus(after);
  }

  setOpen(row) {
    for (const tile of this.tiles) tile.classList.toggle("is-open", tile.span.row === row);
  }

  turn(event, start) {
    const tile = event.target.closest(".tile");
    if (!tile || tile.contains(event.relatedTarget)) return;
    if (start) play(tile);
    else if (!tile.matches(":hover") && tile !== document.activeElement) stop(tile);
  }

  move(event) {
    const tile = focusedTile();
    if (!tile || event.ctrlKey || event.metaKey || event.altKey) return;
    const columns = this.tiles.filter((each) => each.offsetTop === this.tiles[0].offsetTop).length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const last = this.tiles.length - 1, place = this.tiles.indexOf(tile);
    const goal = event.key === "Home" ? 0 : event.key === "End" ? last : place + (steps[event.key] ?? 0);
    if (goal === place || !this.tiles[goal]) return;
    event.preventDefault();
    this.focus(this.tiles[goal]);
  }
}

export const allTiles = () => [...document.querySelectorAll(".tile")]; // of the grid and of the duplicates

export const focusedTile = () => document.activeElement?.closest(".tile") ?? null;

export function setMarks(marks) { // by row: the name of a class, or null
  for (const tile of allTiles()) {
    if (tile.span.row in marks) {
      tile.span.mark = marks[tile.span.row];
      showMark(tile);
    }
  }
}

export function makeTile(span, wholeFiles) {
  const picture = makePicture(span.row);
  const screen = element("span", { className: "picture" }, picture);
  const name = element("span", { className: "name", textContent: span.name.split("/").pop() });
  const left = wholeFiles ? shortTime(span.end - span.start) : `${shortTime(span.start)} – ${shortTime(span.end)}`;
  const times = element("span", { className: "times" }, element("span", { textContent: left }), element("span", { textContent: noteOf(span) }));
  const words = element("span", { className: "words" }, name, times);
  const tile = element("button", { type: "button", className: "tile", title: titleOf(span) }, screen, words);
  tile.span = span;
  tile.dataset.row = span.row;
  picture.addEventListener("error", () => showReason(tile, media(span.row, "picture.jpg")));
  showMark(tile);
  return tile;
}

function noteOf(span) {
  if (span.score !== null && span.score !== undefined) return span.score.toFixed(3);
  return span.label ?? "";
}

function titleOf(span) {
  const parts = [span.name];
  if (span.label) parts.push(`listed as ${span.label}`);
  if (span.answer) parts.push(`the probe says ${span.answer.class}, ${(100 * span.answer.probability).toFixed(0)} %`);
  return parts.join("\n");
}

function showMark(tile) {
  const { span } = tile;
  tile.querySelector(".mark")?.remove();
  if (span.mark) tile.querySelector(".picture").append(element("span", { className: "mark", textContent: span.mark }));
  const label = `${span.name}, ${timeText(span.start)} to ${timeText(span.end)}`;
  tile.setAttribute("aria-label", span.mark ? `${label}, labelled ${span.mark}` : label);
}

async function showReason(tile, address) {
  if (!tile.querySelector("img")?.getAttribute("src")) return; // it was cleared
  const response = await fetch(address).catch(() => null); // the window is closing, or the server is gone
  if (!response || response.ok) return;
  tile.classList.add("is-grey");
  tile.querySelector("img")?.remove();
  tile.querySelector(".reason")?.remove();
  tile.querySelector(".picture").prepend(element("span", { className: "reason", textContent: await reasonOf(response) }));
}

export function play(tile) {
  if (tile.timer || tile.querySelector("video")) return;
  tile.timer = setTimeout(() => {
    const video = element("video", { muted: true, loop: true, playsInline: true, autoplay: true, src: media(tile.span.row, "clip.mp4") });
    video.addEventListener("error", () => {
      if (!video.isConnected) return;
      video.remove();
      showReason(tile, media(tile.span.row, "clip.mp4"));
    });
    tile.querySelector("img")?.after(video);
  }, HOVER_MS);
}

export function stop(tile) {
  clearTimeout(tile.timer);
  tile.timer = 0;
  const video = tile.querySelector("video");
  if (video) {
    video.remove();
    video.removeAttribute("src"); // ends the download
    video.load();
  }
}
