// The clusters of the collection, and its duplicates.

import { ask, counted, element, shortTime } from "./api.js";
import { makeTile, play, stop } from "./grid.js";
import { makePicture } from "./pictures.js";

export class Clusters {
  constructor(section, { onChoose, onError }) {
    Object.assign(this, { section, onChoose, onError, cards: [] });
  }

  async show(chosen) {
    try {
      if (!this.cards.length) {
        this.section.replaceChildren(element("p", { className: "quiet", textContent: "looking for clusters …" }));
        const found = await ask("/api/clusters");
        this.cards = found.map((cluster) => this.card(cluster));
        this.section.replaceChildren(element("div", { className: "cards" }, ...this.cards));
      }
      for (const card of this.cards) card.setAttribute("aria-pressed", card.dataset.cluster === String(chosen));
    } catch (error) { this.section.replaceChildren(); this.onError(error); }
  }

  card(cluster) {
    const pictures = cluster.spans.map((span) => makePicture(span.row));
    const words = element("span", { textContent: `Cluster ${cluster.cluster + 1}: ${cluster.size.toLocaleString("en")}` });
    const card = element("button", { type: "button", className: "card" }, element("span", { className: "pictures" }, ...pictures), words);
    card.dataset.cluster = cluster.cluster;
    card.addEventListener("click", () => this.onChoose(card.getAttribute("aria-pressed") === "true" ? null : cluster.cluster));
    return card;
  }
}

export class Duplicates {
  constructor(section, { onChoose, onError, wholeFiles }) {
    Object.assign(this, { section, onChoose, onError, wholeFiles, shown: -1 });
  }

  async show() {
    if (this.shown >= 0) return;
    this.shown = 0;
    this.section.replaceChildren(element("p", { className: "quiet", textContent: "looking for duplicates …" }));
    this.list = element("ol", { className: "pairs" });
    this.more = element("button", { type: "button", textContent: "More" });
    this.more.addEventListener("click", () => this.add());
    await this.add();
  }

  async add() {
    this.more.disabled = true; // a second click would ask for the same pairs
    try {
      const found = await ask("/api/duplicates", { offset: this.shown });
      const number = found.num_duplicates, pairs = counted(number, "pair");
      const order = this.wholeFiles ? "the most similar first" : "the longest runs first";
      const words = number ? `${pairs} with nearly the same vectors, which may show the same; ${order}` : "No two files have nearly the same vectors.";
      this.shown += found.pairs.length;
      this.list.append(...found.pairs.map((pair) => this.pair(pair)));
      this.more.hidden = this.shown >= found.num_duplicates;
      this.section.replaceChildren(element("p", { className: "quiet", textContent: words }), this.list, this.more);
    } catch (error) { this.shown = -1; this.section.replaceChildren(); this.onError(error); }
    this.more.disabled = false;
  }

  pair(pair) {
    const tiles = pair.sides.map((span) => {
      const tile = makeTile(span, this.wholeFiles);
      tile.addEventListener("click", () => this.onChoose(span));
      for (const type of ["pointerenter", "focus"]) tile.addEventListener(type, () => play(tile));
      for (const type of ["pointerleave", "blur"]) tile.addEventListener(type, () => stop(tile));
      return tile;
    });
    const length = shortTime(pair.sides[0].end - pair.sides[0].start);
    const text = `${pair.similarity}${pair.num_pairs > 1 ? `; ${pair.num_pairs} spans, ${length}` : ""}`;
    return element("li", {}, element("div", { className: "pair" }, ...tiles), element("p", { className: "quiet", textContent: text }));
  }
}
