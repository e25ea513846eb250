// What the page asks the server for.

export const stamp = document.querySelector("main").dataset.stamp;
export const shown = { "V3S-Vectors": stamp }; // a server that has other vectors now would take our numbers for its spans

export class Refused extends Error {}

async function answer(response) {
  if (response.ok) return response.json();
  throw new Refused(await reasonOf(response));
}

export async function reasonOf(response) {
  const text = await response.text();
  try { return JSON.parse(text).error; } catch { return text.slice(0, 300) || response.statusText; }
}

export async function ask(path, values = {}, signal = undefined) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  const query = new URLSearchParams(given);
  return answer(await fetch(given.length ? `${path}?${query}` : path, { signal, headers: shown }));
}

export async function send(path, body) {
  const headers = { "Content-Type": "application/json", ...shown };
  return answer(await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

export function counted(number, noun) { return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`; }

export const media = (row, name) => `/media/${stamp}/${row}/${name}`;

export function timeText(seconds) {
  const tenths = Math.floor(10 * seconds + 0.5);
  const minutes = Math.floor(tenths / 600), rest = tenths % 600;
  const two = (number) => String(number).padStart(2, "0");
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(Math.floor(rest / 10))}.${rest % 10}`;
}

export function shortTime(seconds) { // without hours and tenths that are zero
  return timeText(seconds).replace(/^0:0?/, "").replace(/\.0$/, "");
}

export function secondsOf(text) { // "754.5", "12:34.5" or "0:12:34.5"; null if it is no time
  if (!/^\d+(:\d+){0,2}(\.\d*)?$/.test(text.trim())) return null;
  return text.trim().split(":").reduce((sum, part) => 60 * sum + Number(part), 0);
}

export function choose(select, value, text = value) { // also what is not offered, as an address may ask for it: else nothing would be seen
  select.querySelector("[data-asked]")?.remove();
  if (![...select.options].some((each) => each.value === value)) {
    const asked = element("option", { value, textContent: `${text} (not listed)` });
    asked.dataset.asked = "";
    select.append(asked);
  }
  select.value = value;
}

export function element(name, values = {}, ...children) { // text is never taken for HTML
  const made = Object.assign(document.createElement(name), values);
  made.append(...children);
  return made;
}
