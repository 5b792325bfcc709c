// The list of studies: refreshed in place, so that neither focus nor scrolling is lost.

import { badge, bar, byId, make, say, side, time } from "./dom.js";
import { getIfChanged, post } from "./server.js";

const STEP = 100;
let about;
let shown = { state: null, limit: STEP };
let tag = null;
let opened = null;
const rows = new Map();

export function startList(facts) {
  about = facts;
  byId("more").addEventListener("click", () => show({ limit: Math.min(shown.limit + STEP, 500) }));
}

// Ask for the list once; returns which parts of the cart are not ready, or null if nothing changed.
export async function refreshList() {
  const asked = shown;
  const query = new URLSearchParams({
    limit: asked.limit,
    ...(asked.state && { state: asked.state }),
  });
  const answer = await getIfChanged(`/api/studies?${query}`, tag);
  if (answer.unchanged || asked !== shown) return null;
  tag = answer.tag;
  drawFilters(answer.body.states);
  drawRows(answer.body.studies);
  byId("more").hidden = !answer.body.more || shown.limit >= 500;
  return answer.body.not_ready;
}

export function forgetList() {
  tag = null;
}

function show(change) {
  shown = { ...shown, ...change };
  tag = null;
  return refreshList().catch(() => {});
}

function drawFilters(states) {
  const all = {
    state: null,
    words: "All",
    count: states.reduce((sum, { count }) => sum + count, 0),
  };
  const group = byId("filters");
  [all, ...states].forEach(({ state, words, count }, index) => {
    let button = group.children[index];
    if (!button) {
      const choose = () => show({ state, limit: STEP });
      button = make("button", { type: "button", onclick: choose }, `${words} `, make("b", {}));
      group.append(button);
    }
    button.setAttribute("aria-pressed", String(shown.state === state));
    button.querySelector("b").textContent = count;
  });
}

function drawRows(studies) {
  const body = byId("rows");
  const wanted = new Set();
  const fresh = [];
  studies.forEach((study, index) => {
    const key = study.id ? `case-${study.id}` : study.key;
    const content = JSON.stringify(study);
    wanted.add(key);
    let row = rows.get(key);
    if (row?.content !== content) {
      const focus =
        row && [...row.element.querySelectorAll("a, button")].indexOf(document.activeElement);
      const element = drawRow(study);
      row?.element.replaceWith(element);
      if (row && focus >= 0) element.querySelectorAll("a, button")[focus]?.focus();
      if (!row) fresh.push(study);
      row = { element, content };
      rows.set(key, row);
    }
    if (body.children[index] !== row.element)
      body.insertBefore(row.element, body.children[index] ?? null);
  });
  for (const [key, { element }] of rows) {
    if (wanted.has(key)) continue;
    element.remove();
    rows.delete(key);
  }
  drawEmpty(studies.length === 0);
  if (fresh.length === 1) say(`${fresh[0].words}: ${fresh[0].side ?? ""} ${time(fresh[0].time)}`);
}

function drawRow(study) {
  const when = time(study.time);
  const name = `${when}, ${study.side ?? "side unknown"}, ${study.words}`;
  const link =
    study.id &&
    make("a", { href: `#/studies/${study.id}`, class: "open", "aria-label": `Open ${name}` }, when);
  const row = make(
    "tr",
    { class: study.id ? "openable" : "" },
    make("td", { class: "when" }, link || when),
    make("td", {}, badge(study.state, study.words)),
    make("td", {}, side(study.side)),
    ...(study.result
      ? resultCells(study)
      : [make("td", { colspan: 3, class: "words" }, ...problemWords(study))]),
    make(
      "td",
      { class: "action" },
      study.state === "failed"
        ? retryButton(study.id)
        : study.id
          ? make("span", { class: "chevron", "aria-hidden": "true" }, "›")
          : "",
    ),
  );
  if (link)
    row.addEventListener("click", (event) => event.target.closest("a, button") || link.click());
  return row;
}

function resultCells({ result: { leading, pji_risk: risk, flags }, problem }) {
  const cause = make("td", {}, `${leading.label} `, make("b", {}, leading.words));
  if (problem)
    cause.append(
      make(
        "div",
        { class: "trouble" },
        `${problem.message} ${problem.advice} `,
        make("code", {}, problem.code),
      ),
    );
  return [
    cause,
    make("td", {}, bar("bar", "", risk)),
    make(
      "td",
      { class: "count" },
      flags ? make("span", { class: "flags", "aria-label": `${flags} flags` }, `⚑ ${flags}`) : "–",
    ),
  ];
}

function problemWords({ state, problem, arrived }) {
  if (!problem)
    return [
      make(
        "span",
        { class: "muted" },
        arrived ?? (state === "assembled" ? "AP and lateral are there." : ""),
      ),
    ];
  return [
    make("div", {}, problem.message),
    make("div", { class: "muted" }, `${problem.advice} `, make("code", {}, problem.code)),
  ];
}

// Failed studies are taken up where they stopped.
export function retryButton(id, after = () => {}) {
  const retry = async (event) => {
    event.target.disabled = true;
    try {
      await post(`/api/studies/${id}/retry`);
      say("The study is tried again.");
    } catch (refusal) {
      say(refusal.message);
      event.target.disabled = false;
    }
    tag = null;
    await refreshList().catch(() => {});
    after();
  };
  return make("button", { type: "button", class: "retry", onclick: retry }, "Retry");
}

function drawEmpty(empty) {
  byId("studies").hidden = empty;
  byId("keys").hidden = empty;
  byId("empty").hidden = !empty;
  if (!empty) return;
  const filtered = shown.state !== null;
  byId("empty").replaceChildren(
    make("h2", {}, filtered ? "No study is in this state" : "No study yet"),
    filtered
      ? make("p", {}, "Choose All to see the others.")
      : make(
          "p",
          {},
          "Send an AP and a lateral radiograph of a hip to this cart: AE title ",
          make("b", {}, about.ae_title),
          ", port ",
          make("b", {}, String(about.port)),
          ".",
        ),
    filtered
      ? null
      : make(
          "p",
          { class: "muted" },
          "Or drop the two DICOM files above. They appear here within seconds.",
        ),
  );
}

// Arrows walk through the studies that can be opened.
export function listKey(event) {
  const links = [...document.querySelectorAll("#rows .open")];
  const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
  if (step === undefined || links.length === 0) return;
  const row = document.activeElement.closest("tr");
  const at = row ? links.indexOf(row.querySelector(".open")) : step > 0 ? -1 : links.length;
  event.preventDefault();
  focusOn(links[Math.max(0, Math.min(links.length - 1, at + step))]);
}

function focusOn(link) {
  link.focus();
  link.closest("tr").scrollIntoView({ block: "nearest" });
}

export const rememberOpened = (id) => {
  opened = id;
};

// Back from a study the eye finds it again.
export function focusOpened() {
  const link = opened && document.querySelector(`#rows a[href="#/studies/${opened}"]`);
  if (link) focusOn(link);
  else byId("main").focus();
}
