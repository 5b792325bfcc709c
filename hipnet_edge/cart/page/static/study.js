// One study: both radiographs with a map upon each, and everything that is a number or a sentence.

import { badge, bar, byId, capital, make, say, time } from "./dom.js";
import { retryButton } from "./list.js";
import { get } from "./server.js";

const FINISHED = ["delivered", "refused", "failed"];
let about;
let study = null;
let drawn = { id: null, films: "", words: "" };
// What a person has set stays from study to study, but the cause: each begins with its leading one.
const look = { cause: null, opacity: 70, hidden: false };

export function startStudy(facts) {
  about = facts;
  look.opacity = Math.round(100 * facts.opacity);
}

export async function showStudy(id) {
  const asked = location.hash;
  const fresh = await get(`/api/studies/${id}`);
  if (location.hash !== asked) return;
  if (drawn.id !== id) {
    drawn = { id, films: "", words: "" };
    look.cause = fresh.result?.leading ?? null;
    byId("study").replaceChildren(
      make("div", { class: "study-head", id: "study-head" }),
      make("div", { class: "films", id: "study-films" }),
      make("div", {
        class: "side",
        id: "study-side",
        tabindex: "0",
        role: "region",
        "aria-label": "What was found",
      }),
    );
  }
  study = fresh;
  look.cause ??= study.result?.leading ?? null;
  const films = JSON.stringify([study.views, study.result]);
  const words = JSON.stringify(study);
  if (films !== drawn.films) drawFilms();
  if (words !== drawn.words) drawWords();
  drawn = { id, films, words };
}

export const studyIsFinished = () => study !== null && FINISHED.includes(study.state);

// Forget it all, a patient's name above all.
export function leaveStudy() {
  study = null;
  drawn = { id: null, films: "", words: "" };
  byId("study").replaceChildren();
}

function drawWords() {
  const { result, problem, patient } = study;
  const leading = result?.causes.find(({ cause }) => cause === result.leading);
  const hip = study.side ? `${capital(study.side)} hip` : "Side unknown";
  byId("study-head").replaceChildren(
    make("a", { href: "#/", class: "button back" }, "‹ Studies"),
    make(
      "div",
      { class: "title" },
      make(
        "h1",
        { id: "study-title" },
        leading ? `${hip}: ${leading.label} ${leading.words}` : hip,
      ),
      patient ? patientLine(patient) : null,
    ),
    make(
      "div",
      { class: "stand" },
      badge(study.state, study.words),
      make("span", { class: "muted" }, time(study.time)),
    ),
  );
  byId("study-side").replaceChildren(
    ...[
      problem && problemBlock(problem),
      ...(result ? resultBlocks(result) : []),
      linksBlock(),
      deliveryBlock(),
      result && provenanceBlock(result.provenance),
    ].filter(Boolean),
  );
}

const patientLine = ({ name, id, birth_date: born }) =>
  make(
    "dl",
    { class: "patient", "aria-label": "Patient" },
    ...[
      ["Name", name],
      ["ID", id],
      ["Born", born],
    ].map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value || "–"))),
  );

const block = (title, ...children) =>
  make("section", { class: "block" }, make("h2", {}, title), ...children);

function problemBlock({ code, message, advice, attempts, next_at: next }) {
  const again = next && study.state !== "failed" ? ` Next try ${time(next)}.` : "";
  return make(
    "section",
    { class: "block problem", role: "note" },
    make("h2", {}, study.state === "refused" ? "Why it was not read" : "What went wrong"),
    make("p", {}, message),
    make("p", {}, advice + again),
    make(
      "p",
      { class: "muted" },
      "Code ",
      make("code", {}, code),
      attempts > 1 ? `, tried ${attempts} times` : "",
    ),
    study.state === "failed"
      ? retryButton(study.id, () => showStudy(study.id).catch(() => {}))
      : null,
  );
}

function resultBlocks(result) {
  const causes = result.causes.map(({ cause, label, plausible, ...measure }) => {
    const name = make(cause === result.leading ? "b" : "span", {}, label);
    const tag = plausible ? make("span", { class: "tag" }, "plausible") : "";
    return bar("bar-row", [name, tag], measure, plausible);
  });
  const measures = [
    ["PJI risk", result.pji_risk],
    ["Any sign of failure", result.sign_of_failure],
    ["Disagreement of the four networks", result.disagreement],
  ]
    .filter(([, measure]) => measure)
    .map(([label, measure]) => bar("bar-row", label, measure));
  if (result.novelty !== null) {
    measures.push(
      make(
        "li",
        { class: "plain-row" },
        make("span", {}, "Novelty (usual: 1)"),
        make("span", { class: "number" }, result.novelty.toFixed(2)),
      ),
    );
  }
  const flags = result.flags.map(({ words }) =>
    make(
      "li",
      {},
      make("span", { class: "flag-sign", "aria-hidden": "true" }, "⚑"),
      make("span", {}, words),
    ),
  );
  return [
    block("Probability of each cause", make("ul", { class: "bars" }, ...causes)),
    block("Risk and uncertainty", make("ul", { class: "bars" }, ...measures)),
    block(
      "What to know about this result",
      flags.length ? make("ul", { class: "flag-list" }, ...flags) : make("p", {}, "No flags."),
    ),
  ];
}

function linksBlock() {
  if (!study.result) return null;
  const download = ({ sop, words }) =>
    make(
      "a",
      {
        class: "button",
        href: `/api/studies/${study.id}/objects/${encodeURIComponent(sop)}.dcm`,
        download: true,
      },
      words,
    );
  return block(
    "Report and files",
    make(
      "div",
      { class: "links" },
      make(
        "a",
        { class: "button primary", href: `#/studies/${study.id}/report` },
        "Read the report",
      ),
      study.objects.length ? make("p", { class: "muted" }, "Download as DICOM") : null,
      ...study.objects.map(download),
    ),
  );
}

function openWords({ words, state, attempts, reason }) {
  const tried = attempts && (attempts === 1 ? "tried once" : `tried ${attempts} times`);
  return `${words}: ${[state, tried, reason?.replaceAll("_", " ")].filter(Boolean).join(", ")}`;
}

function deliveryBlock() {
  if (!study.deliveries.length) {
    return study.result && study.state === "delivered"
      ? block(
          "Delivery",
          make(
            "p",
            { class: "muted" },
            "No destination is set up: the result is on this page only.",
          ),
        )
      : null;
  }
  const lines = study.deliveries.map(({ destination, sent, of, failed, objects }) => {
    const state = sent === of ? "✓ all sent" : failed ? "! given up" : "→ waiting";
    const open = objects.filter((each) => each.state !== "sent");
    return make(
      "li",
      {},
      make("b", {}, destination),
      ` ${state} (${sent} of ${of})`,
      ...open.map((each) => make("div", { class: "muted" }, openWords(each))),
    );
  });
  return block("Delivery", make("ul", { class: "deliveries" }, ...lines));
}

const provenanceBlock = (facts) =>
  block(
    "Made by",
    make(
      "dl",
      { class: "facts" },
      ...Object.entries(facts).map(([term, value]) =>
        make("div", {}, make("dt", {}, term), make("dd", {}, value)),
      ),
    ),
  );

function drawFilms() {
  const place = byId("study-films");
  if (!study.views.length) {
    place.replaceChildren(
      make("p", { class: "muted no-film" }, "No radiograph of this study can be shown."),
    );
    return;
  }
  const figures = study.views.map((view) => {
    const { label } = about.views.find((each) => each.view === view);
    const film = make("img", {
      class: "film",
      alt: `${label} radiograph`,
      src: `/api/studies/${study.id}/views/${view}.png`,
    });
    film.addEventListener("error", () =>
      film.replaceWith(make("p", { class: "muted no-film" }, "This radiograph cannot be shown.")),
    );
    return make(
      "figure",
      { "data-view": view },
      make("div", { class: "stack" }, film),
      make("figcaption", {}, label),
    );
  });
  place.replaceChildren(
    make("div", { class: "pair" }, ...figures),
    study.result?.maps ? controls() : "",
  );
  drawLook();
}

function controls() {
  const causes = about.causes.map(({ cause, label }, index) =>
    make(
      "label",
      {},
      make("input", {
        type: "radio",
        name: "cause",
        value: cause,
        onchange: () => setLook({ cause }),
        class: "unseen",
      }),
      make("kbd", { "aria-hidden": "true" }, String(index + 1)),
      make("span", {}, label),
    ),
  );
  return make(
    "div",
    { class: "controls" },
    make(
      "fieldset",
      { class: "causes" },
      make("legend", { class: "unseen" }, "Map of which cause, keys 1 to 5"),
      ...causes,
    ),
    make(
      "div",
      { class: "dials" },
      make("button", {
        type: "button",
        id: "hide",
        "aria-keyshortcuts": "h",
        onclick: () => setLook({ hidden: !look.hidden }),
      }),
      make(
        "label",
        { for: "opacity" },
        "Opacity ",
        make("kbd", { "aria-hidden": "true" }, "["),
        " ",
        make("kbd", { "aria-hidden": "true" }, "]"),
      ),
      make("input", {
        type: "range",
        id: "opacity",
        min: 0,
        max: 100,
        step: 5,
        oninput: (event) => setLook({ opacity: Number(event.target.value), hidden: false }),
      }),
      make("output", { for: "opacity", id: "opacity-words" }),
      make(
        "span",
        { class: "scale" },
        "0",
        make("img", { src: "/api/scale.png", alt: "colours of the map from probability 0 to 1" }),
        "1",
      ),
    ),
  );
}

export function setLook(change) {
  Object.assign(look, change);
  drawLook();
}

function drawLook() {
  if (!study?.result?.maps || !byId("opacity")) return;
  for (const stack of document.querySelectorAll("#study .stack")) {
    const { view } = stack.parentElement.dataset;
    let chosen = stack.querySelector(`[data-cause="${look.cause}"]`);
    if (!chosen) {
      chosen = make("img", {
        class: "map",
        alt: "",
        "data-cause": look.cause,
        src: `/api/studies/${study.id}/maps/${view}/${look.cause}.png`,
      });
      stack.append(chosen);
    }
    for (const map of stack.querySelectorAll(".map")) map.hidden = map !== chosen || look.hidden;
    chosen.style.opacity = look.opacity / 100;
  }
  for (const input of document.querySelectorAll("#study [name=cause]"))
    input.checked = input.value === look.cause;
  byId("opacity").value = look.opacity;
  byId("opacity-words").textContent = `${look.opacity} %`;
  byId("hide").replaceChildren(
    look.hidden ? "Show the map " : "Hide the map ",
    make("kbd", { "aria-hidden": "true" }, "h"),
  );
}

export function studyKey(event) {
  if (!study?.result?.maps) return;
  const cause = about.causes[Number(event.key) - 1];
  const step = { "[": -10, "]": 10 }[event.key];
  if (cause) {
    setLook({ cause: cause.cause });
    say(`Map of ${cause.label}`);
  } else if (step) {
    setLook({ opacity: Math.max(0, Math.min(100, look.opacity + step)), hidden: false });
    say(`Opacity ${look.opacity} %`);
  } else if (event.key === "h") {
    setLook({ hidden: !look.hidden });
    say(look.hidden ? "The map is hidden" : "The map is shown");
  }
}
