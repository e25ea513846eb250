// One span in its file: some seconds around it, which may be moved, and a stretch of it to search with.

import { ask, media, reasonOf, timeText } from "./api.js";

const AROUND_SECONDS = 5, MOST_SECONDS = 30;

export class Player {
  constructor(section, { onLike, onStretch, onClose }) {
    this.section = section;
    this.video = section.querySelector("video");
    this.slider = section.querySelector("input");
    this.span = this.window = this.played = null; // played: the window that the video shows
    this.actions = {
      play: () => (this.video.paused ? this.video.play() : this.video.pause()),
      earlier: () => this.shift(-1),
      later: () => this.shift(1),
      close: () => { this.close(); onClose(); },
      from: () => this.isReady && this.setEnd("from"),
      to: () => this.isReady && this.setEnd("to"),
      like: () => onLike(this.span),
      search: () => this.button("search").disabled || onStretch(this.span, this.stretch),
    };
    section.addEventListener("click", (event) => this.actions[event.target.closest("button")?.dataset.do]?.());
    this.slider.addEventListener("input", () => { this.video.currentTime = Number(this.slider.value) - this.window.start; });
    this.video.addEventListener("timeupdate", () => this.isReady && this.showTime());
    this.video.addEventListener("loadeddata", () => {
      if (this.played !== this.window) return; // the next window is on its way
      this.setReady(true);
      this.showTime();
    });
    for (const type of ["play", "pause"]) {
      this.video.addEventListener(type, () => { this.button("play").classList.toggle("is-playing", !this.video.paused); });
    }
  }

  allowSearch(allowed) {
    this.button("search").disabled = !allowed;
    if (!allowed) this.button("search").title = "These vectors are of whole videos. Embed with --segment to search with stretches.";
  }

  setReady(ready) { // whether the window can be seen, so that its time is known
    this.isReady = ready;
    this.slider.disabled = !ready;
    for (const name of ["play", "from", "to"]) this.button(name).disabled = !ready;
    if (!ready) this.section.querySelector(".time").textContent = "loading …";
  }

  get isOpen() { return this.span !== null; }

  button(name) { return this.section.querySelector(`[data-do="${name}"]`); }

  async open(span) {
    this.span = span;
    this.section.hidden = false;
    this.stretch = { from: span.start, to: span.end };
    this.fileSeconds = span.end;
    this.section.querySelector(".name").textContent = span.name;
    this.clear();
    this.window = null;
    this.setReady(false);
    for (const name of ["earlier", "later"]) this.button(name).disabled = true; // until there is a window to move
    this.video.poster = media(span.row, "picture.jpg");
    try {
      const facts = await ask(`/api/spans/${span.row}`);
      if (this.span !== span) return;
      this.fileSeconds = facts.file_seconds;
      const length = Math.min(span.end - span.start + 2 * AROUND_SECONDS, MOST_SECONDS);
      const middle = (span.start + span.end) / 2;
      const start = Math.min(span.end - span.start > MOST_SECONDS ? span.start : middle - length / 2, this.fileSeconds - length);
      await this.show(Math.max(0, start), length, span.start);
    } catch (error) {
      if (this.span === span) this.fail(error.message);
    }
  }

  async show(start, length, at) {
    const window = { start, end: Math.min(this.fileSeconds, start + length) };
    this.window = window;
    this.setReady(false);
    Object.assign(this.slider, { min: window.start, max: window.end, value: at });
    this.button("earlier").disabled = window.start <= 0;
    this.button("later").disabled = window.end >= this.fileSeconds - 0.01;
    this.showStretch();
    const response = await fetch(`${media(this.span.row, "window.mp4")}?start=${window.start}&end=${window.end}`);
    const answer = response.ok ? await response.blob() : await reasonOf(response);
    if (this.window !== window) return;
    if (!response.ok) { this.fail(answer); return; }
    this.clear();
    this.played = window;
    this.address = URL.createObjectURL(answer);
    this.video.src = this.address;
    this.video.currentTime = Math.max(0, at - window.start);
    this.video.play().catch(() => {});
  }

  shift(direction) {
    const length = this.window.end - this.window.start;
    const start = Math.min(Math.max(0, this.window.start + direction * length / 2), Math.max(0, this.fileSeconds - length));
    this.show(start, length, start).catch((error) => this.fail(error.message));
  }

  setEnd(name) {
    const time = this.now;
    this.stretch[name] = time;
    if (this.stretch.from >= this.stretch.to) {
      if (name === "from") this.stretch.to = Math.min(this.fileSeconds, time + 1);
      else this.stretch.from = Math.max(0, time - 1);
    }
    this.showStretch();
  }

  get now() { return this.window.start + this.video.currentTime; }

  showTime() {
    this.slider.value = this.now;
    this.section.querySelector(".time").textContent = `${timeText(this.now)} of ${timeText(this.fileSeconds)}`;
  }

  showStretch() {
    const { from, to } = this.stretch;
    this.section.querySelector(".chosen").textContent = `${timeText(from)} – ${timeText(to)}`;
    this.place(".extent", this.span.start, this.span.end);
    this.place(".stretch", from, to);
  }

  place(name, start, end) {
    const { window } = this, share = (time) => 100 * Math.min(1, Math.max(0, (time - window.start) / (window.end - window.start)));
    const { style } = this.section.querySelector(name);
    style.left = `${share(start)}%`;
    style.width = `${share(end) - share(start)}%`;
  }

  fail(reason) {
    this.clear();
    this.section.querySelector(".time").textContent = "";
    const shown = this.section.querySelector(".reason");
    shown.hidden = false;
    shown.textContent = reason;
  }

  clear() {
    this.section.querySelector(".reason").hidden = true;
    this.video.removeAttribute("src");
    this.video.load();
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = null;
  }

  close() {
    this.clear();
    this.setReady(false);
    this.span = this.window = null;
    this.section.hidden = true;
  }
}
