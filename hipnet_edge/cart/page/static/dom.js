// Small helpers to build what is seen. Text is always text: nothing from the cart becomes markup.

export const byId = (id) => document.getElementById(id);

// An element with attributes (`on…` are listeners, false and null leave one out) and children.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const say = (words) => {
  byId("said").textContent = words;
};

export const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1);

export const side = (name) => (name ? capital(name) : "–");

// Today's times without their date; the hospital's own 24 hours whatever the browser's language.
export function time(seconds) {
  const at = new Date(seconds * 1000);
  const clock = at.toLocaleTimeString("en-GB", {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  });
  if (at.toDateString() === new Date().toDateString()) return clock;
  return `${at.toLocaleDateString("en-GB", { day: "2-digit", month: "short" })}, ${clock.slice(0, 5)}`;
}

const SIGNS = {
  received: "…",
  assembled: "»",
  predicted: "→",
  delivered: "✓",
  refused: "×",
  failed: "!",
};

export const badge = (state, words) =>
  make(
    "span",
    { class: `badge ${state}` },
    make("span", { class: "sign", "aria-hidden": "true" }, SIGNS[state]),
    words,
  );

// A number with its bar and what it is of; the number is what is read out.
export function bar(shape, label, { value, words }, marked = false) {
  const fill = make("span", { class: marked ? "fill marked" : "fill" });
  fill.style.width = `${100 * value}%`;
  return make(
    shape === "bar-row" ? "li" : "div",
    { class: shape },
    label ? make("span", { class: "label" }, label) : null,
    make("span", { class: "number" }, words),
    make("span", { class: "track", "aria-hidden": "true" }, fill),
  );
}
