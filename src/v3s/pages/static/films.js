// Under each film a button and its time, beside the picture; a film that is a link plays while one points at it.
const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
for (const film of document.querySelectorAll("video")) {
  const link = film.closest("a"), play = () => film.play().catch(() => {}), pause = () => film.pause();
  if (link || isCalm) {
    film.autoplay = false;
    pause();
  }
  if (link) {
    for (const event of ["pointerenter", "focus"]) link.addEventListener(event, play);
    for (const event of ["pointerleave", "blur"]) link.addEventListener(event, pause);
    continue;
  }
  const controls = film.nextElementSibling, [button, time] = controls.children;
  const show = () => (button.textContent = film.paused ? "\u25b6" : "\u2759\u2759");
  film.onplay = film.onpause = show;
  film.ontimeupdate = () => (time.value = film.currentTime / film.duration);
  film.onclick = button.onclick = () => (film.paused ? play() : pause());
  time.oninput = () => {
    pause();
    film.currentTime = time.value * film.duration;
  };
  show();
  controls.hidden = false;
}
