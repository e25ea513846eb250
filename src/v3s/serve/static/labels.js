// The classes, the keys that give them, and what the probe learned from them.

import { ask, counted, element, Refused, send } from "./api.js";

const POLL_MS = 2000, MOST_ROWS = 500; // that the server describes at once

export class Labels {
  constructor(section, { rowsShown, onAnswer, onClasses, onAdded, onMarks, onChoose, onTrained, onError }) {
    this.section = section;
    this.calls = { rowsShown, onAnswer, onClasses, onAdded, onMarks, onChoose, onTrained, onError };
    this.classes = [];
    this.version = -1;
    this.seen = -1; // the version whose labels all tiles show; null after a poll without an answer
    this.undo = [];
    this.isTraining = false;
    this.notice = ""; // what the server said about the labels and the vectors
    this.sent = Promise.resolve(); // one label after the other, in the order of the keys
    this.numUnsent = 0;
    section.querySelector("#new-class").addEventListener("submit", (event) => this.add(event));
    section.addEventListener("mousedown", (event) => { // so that the tile that has the focus keeps it
      if (event.target.closest("button")) event.preventDefault();
    });
    section.querySelector("#classes").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) onChoose(this.names[Number(button.dataset.place)]);
    });
    section.querySelector("#train").addEventListener("click", () => this.train());
    section.querySelector("#unlabel").addEventListener("click", () => onChoose(null));
    section.querySelector("#undo").addEventListener("click", () => this.undoLast());
    const poll = async () => { // again after the answer: over a slow connection, more and more would wait
      if (!document.hidden) await this.poll();
      setTimeout(poll, POLL_MS);
    };
    setTimeout(poll, POLL_MS);
  }

  get names() { return this.classes.map((each) => each.name); }

  add(event) {
    event.preventDefault();
    const input = event.target.elements.name, name = input.value.trim();
    if (!name) return;
    input.value = ""; // at once: what is typed until the answer comes is the next name, or keys
    input.blur();
    this.calls.onAdded();
    this.inTurn(async () => {
      try { await this.change("/api/classes", { name }); } catch (error) { input.value ||= name; throw error; }
    });
  }

  take(found) {
    this.classes = found.classes;
    this.version = found.version;
    this.list = found.list;
    this.others = found.others;
    this.show();
    this.calls.onClasses();
    if (found.marks) this.calls.onMarks(found.marks);
    if (found.notice && found.notice !== this.notice) this.calls.onError(new Refused(found.notice));
    this.notice = found.notice;
  }

  async change(path, body) {
    const found = await send(path, body);
    this.calls.onAnswer();
    this.take(found);
    return found;
  }

  inTurn(send) {
    this.numUnsent += 1;
    this.sent = this.sent.then(send).catch((error) => this.calls.onError(error)).finally(() => {
      this.numUnsent -= 1;
      this.showSaved();
    });
    this.showSaved();
    return this.sent;
  }

  async setLabel(span, label) {
    const found = await this.change("/api/labels", { rows: [span.row], label });
    return found.before[0];
  }

  give(span, name) { // null removes the label
    return this.inTurn(async () => {
      const before = await this.setLabel(span, name); // as the server knows it: another window may have changed it
      this.undo.push({ span, before, given: name });
    });
  }

  undoLast() {
    return this.inTurn(async () => {
      const last = this.undo.at(-1);
      if (!last) return;
      const { row } = last.span, found = await ask("/api/labels", { rows: row });
      if (found.marks[row] === last.given) {
        await this.setLabel(last.span, last.before);
        this.undo.pop(); // not before: a server that did not answer is asked again
      } else { // undone, this label or one before it would take away what another window has done
        this.undo = this.undo.filter((each) => each.span.row !== row);
        this.take(found);
        this.calls.onError(new Refused("Not undone: another window has changed this label since."));
      }
    });
  }

  async poll() { // what other windows have labelled
    const { version } = this, marks = {};
    try {
      const found = await ask("/api/labels");
      if (found.version === this.seen && found.notice === this.notice) return;
      const rows = this.calls.rowsShown();
      for (let at = 0; at < rows.length; at += MOST_ROWS) {
        Object.assign(marks, (await ask("/api/labels", { rows: rows.slice(at, at + MOST_ROWS).join(",") })).marks);
      }
      if (this.version !== version) return; // a label was given here since, which these marks may not have
      if (this.seen === null) this.calls.onAnswer();
      this.take({ ...found, marks });
      this.seen = found.version;
    } catch (error) {
      if (this.seen !== null) this.calls.onError(error, { scrolls: false });
      this.seen = null;
    }
  }

  async train() {
    if (this.isTraining) return; // each one takes seconds, and labels wait for them
    this.isTraining = true;
    const shown = this.section.querySelector("#trained");
    shown.textContent = "training …";
    try {
      await this.sent;
      const found = await send("/api/probe", {});
      shown.textContent = `Trained on ${found.num_labels} labels of ${found.classes.length} classes. `
        + (found.num_held_out ? tested(found) : "To test it, label spans of each class in two files, of UCF101 in two groups.");
      this.calls.onTrained(found.classes);
    } catch (error) {
      shown.textContent = "";
      this.calls.onError(error);
    }
    this.isTraining = false;
  }

  show() {
    const items = this.classes.map(({ name, count }, place) => {
      const key = element("kbd", { textContent: place < 9 ? String(place + 1) : "" });
      const words = element("span", { className: "name", textContent: name });
      const button = element("button", { type: "button", title: `Give the span this class: ${name}` }, key, words, element("span", { className: "quiet", textContent: count }));
      button.dataset.place = place;
      return element("li", {}, button);
    });
    const list = this.section.querySelector("#classes"), focused = document.activeElement;
    const place = list.contains(focused) ? focused.dataset.place : null;
    list.replaceChildren(...items);
    list.children[place]?.firstChild.focus({ preventScroll: true }); // as before, for who goes by Tab and Enter
    this.showSaved();
  }

  showSaved() {
    const total = this.classes.reduce((sum, each) => sum + each.count, 0);
    const saved = this.section.querySelector("#list");
    if (this.numUnsent > 1) { saved.textContent = `saving ${counted(this.numUnsent, "label")} …`; return; }
    if (!total) { saved.textContent = this.classes.length ? "" : "Add a class, go to a span with the arrow keys, and press 1: the next span is then selected."; return; }
    const others = this.others ? ` ${counted(this.others, "more label")} ${this.others === 1 ? "is of a span" : "are of spans"} that this collection does not have.` : "";
    saved.replaceChildren(`${counted(total, "label")}, saved in `, element("a", { href: "/labels.csv", textContent: this.list }), `.${others}`);
  }
}

// How often the probe is right on files that it has not seen, beside what is right without looking.
function tested({ num_labels, num_held_out, num_right, majority, num_majority }) {
  const others = num_labels - num_held_out;
  return `Tested on files that it has not seen: ${num_right} of ${num_held_out} labels are right; always answering “${majority}” would get ${num_majority} right.`
    + (others ? ` ${counted(others, "label")} could not be tested: too few files have the class.` : "");
}
