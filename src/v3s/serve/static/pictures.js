// The pictures of spans, a few at a time: a browser has six connections to a server, and a label must not wait for pictures.

import { element, media } from "./api.js";

const MOST = 4;
const unloaded = new Set();
let numLoading = 0;
const nearby = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) unloaded.add(target);
    else unloaded.delete(target);
  }
  load();
}, { rootMargin: "600px" });

export function makePicture(row) {
  const picture = element("img", { decoding: "async", alt: "" });
  picture.dataset.src = media(row, "picture.jpg");
  nearby.observe(picture);
  return picture;
}

export function forget(picture) { // so that it does not delay others
  nearby.unobserve(picture);
  unloaded.delete(picture);
  picture.removeAttribute("src");
  picture.dispatchEvent(new Event("forget"));
}

function load() {
  for (const picture of unloaded) {
    if (numLoading >= MOST) return;
    unloaded.delete(picture);
    nearby.unobserve(picture);
    numLoading += 1;
    const ended = new AbortController();
    for (const type of ["load", "error", "forget"]) picture.addEventListener(type, () => {
      ended.abort();
      numLoading -= 1;
      load();
    }, { signal: ended.signal });
    picture.src = picture.dataset.src;
  }
}
