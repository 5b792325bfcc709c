// What is shown: the list, a study, its report or the login; and which key does what there.

import { byId, make } from "./dom.js";
import {
  focusOpened,
  forgetList,
  listKey,
  refreshList,
  rememberOpened,
  startList,
} from "./list.js";
import { leaveReport, showReport } from "./report.js";
import { get, post } from "./server.js";
import { leaveStudy, showStudy, startStudy, studyIsFinished, studyKey } from "./study.js";
import { startUploads } from "./upload.js";

const EVERY_MS = 2000;
const SECTIONS = ["list", "study", "report", "login"];
let started = false;
let watching = false;

// "#/studies/12/report" -> { name: "report", id: 12 }
function place() {
  const [, id, report] = /^#\/studies\/(\d{1,15})(\/report)?$/.exec(location.hash) ?? [];
  return id ? { name: report ? "report" : "study", id: Number(id) } : { name: "list" };
}

function reveal(name, title) {
  for (const section of SECTIONS) byId(section).hidden = section !== name;
  document.title = `${title} – hipnet_edge`;
}

async function go() {
  const { name, id } = place();
  const asked = location.hash; // an answer that comes when another place is looked at is dropped
  const before = SECTIONS.find((section) => !byId(section).hidden);
  if (name !== "study") leaveStudy();
  if (name !== "report") leaveReport();
  if (name === "list") {
    reveal("list", "Studies");
    if (before === "study" || before === "report") focusOpened();
    return;
  }
  rememberOpened(id);
  if (name === "report") {
    reveal("report", "Report");
    byId("main").focus();
    await showReport(id);
    return;
  }
  try {
    await showStudy(id);
    if (location.hash !== asked) return;
    reveal("study", "Study");
  } catch (refusal) {
    if (location.hash !== asked || needsToken(refusal)) return;
    byId("study").replaceChildren(
      make(
        "div",
        { class: "empty" },
        make("h1", { id: "study-title" }, "This study cannot be shown"),
        make("p", {}, refusal.message),
        make("a", { class: "button", href: "#/" }, "‹ Studies"),
      ),
    );
    reveal("study", "Study");
  }
  byId("main").focus();
}

function drawReady(missing, words = "not ready: ") {
  const ready = byId("ready");
  ready.className = missing.length ? "ready bad" : "ready good";
  ready.textContent = missing.length ? `! ${words}${missing.join(", ")}` : "✓ ready";
}

// One round of looking whether anything changed.
async function look() {
  try {
    const missing = await refreshList();
    if (missing) drawReady(missing);
    if (place().name === "study" && !byId("study").hidden && !studyIsFinished())
      await showStudy(place().id);
  } catch (refusal) {
    if (needsToken(refusal)) return false;
    forgetList();
    drawReady([refusal.message], "");
  }
  return true;
}

async function watch() {
  if (watching) return;
  watching = true;
  while (document.hidden || (await look()))
    await new Promise((later) => setTimeout(later, EVERY_MS));
  watching = false;
}

function needsToken(refusal) {
  if (refusal.status !== 401) return false;
  leaveStudy();
  leaveReport();
  reveal("login", "Token");
  byId("ready").className = "ready";
  byId("ready").textContent = "locked";
  byId("token").focus();
  return true;
}

async function start() {
  let about;
  try {
    about = await get("/api/about");
  } catch (refusal) {
    if (needsToken(refusal)) return;
    drawReady([refusal.message], "");
    setTimeout(start, EVERY_MS);
    return;
  }
  byId("station").textContent = about.station;
  byId("logout").hidden = !about.token;
  if (!started) {
    startList(about);
    startStudy(about);
    startUploads(about, () => refreshList().catch(() => {}));
    addEventListener("hashchange", go);
    started = true;
  }
  await go();
  await watch();
}

byId("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const said = byId("login-said");
  said.textContent = "";
  try {
    await post("/api/login", byId("token").value);
  } catch (refusal) {
    said.textContent = refusal.message;
    return;
  }
  byId("token").value = "";
  forgetList();
  await start();
});

byId("logout").addEventListener("click", async () => {
  await post("/api/logout").catch(() => {});
  location.reload();
});

byId("skip").addEventListener("click", () => byId("main").focus());

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || !byId("login").hidden) return;
  const { name, id } = place();
  if (event.key === "Escape" && name !== "list") {
    location.hash = name === "report" ? `#/studies/${id}` : "#/";
  } else if (name === "list") {
    listKey(event);
  } else if (name === "study") {
    studyKey(event);
  }
});

start();
