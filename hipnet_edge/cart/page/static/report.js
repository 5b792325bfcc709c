// The report of a study to read: what the structured report says, and the picture of the result.

import { byId, make } from "./dom.js";
import { get } from "./server.js";

export async function showReport(id) {
  const place = byId("report");
  place.replaceChildren(
    make(
      "div",
      { class: "study-head" },
      make("a", { href: `#/studies/${id}`, class: "button back" }, "‹ Study"),
      make("h1", { id: "report-title" }, "Report"),
    ),
    make(
      "div",
      { class: "report-body", tabindex: "0", role: "region", "aria-labelledby": "report-title" },
      make("p", { class: "muted" }, "Reading the report …"),
    ),
  );
  const body = place.querySelector(".report-body");
  const lines = await get(`/api/studies/${id}/report`).then(
    (report) => report.lines.map(drawLine),
    (refusal) => [make("p", { class: "bad" }, refusal.message)],
  );
  body.replaceChildren(
    make("img", {
      class: "page",
      src: `/api/studies/${id}/page.png`,
      alt: "Both radiographs with every map, number and flag of the result on one page",
    }),
    make("h2", {}, "What the structured report says"),
    make("div", { class: "report-lines" }, ...lines),
  );
}

function drawLine({ depth, name, value }) {
  const line = make(
    "p",
    { class: value ? "" : "heading" },
    make("span", { class: "name" }, name),
    value ? " " : "",
    make("span", { class: "value" }, value),
  );
  line.style.marginInlineStart = `${depth * 1.25}rem`;
  return line;
}

export const leaveReport = () => byId("report").replaceChildren();
