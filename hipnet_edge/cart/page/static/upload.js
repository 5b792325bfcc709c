// Files that are dropped or chosen: sent one after the other, each answered in words.

import { byId, make } from "./dom.js";
import { post } from "./server.js";

const MIB = 1024 * 1024;

export function startUploads(about, refresh) {
  const drop = byId("drop");
  const files = byId("files");
  byId("pick").addEventListener("click", () => files.click());
  files.addEventListener("change", async () => {
    const chosen = [...files.files];
    files.value = "";
    await take(chosen);
  });
  for (const type of ["dragenter", "dragover"]) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener(
    "dragleave",
    (event) => event.relatedTarget || drop.classList.remove("over"),
  );
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    await take([...event.dataTransfer.files]);
  });

  async function take(chosen) {
    if (!chosen.length || !byId("login").hidden) return;
    location.hash = "#/"; // where it is said what became of them
    const log = byId("uploads");
    log.hidden = false;
    log.replaceChildren(
      make("ul", {}),
      make("button", { type: "button", onclick: () => (log.hidden = true) }, "Close"),
    );
    const lines = chosen.map((file, index) => {
      // Names of files may hold a patient's: they are shown to who chose them and sent nowhere.
      const said = make("span", {}, "waits");
      log.firstChild.append(
        make("li", {}, make("b", {}, file.name || `File ${index + 1}`), " ", said),
      );
      return said;
    });
    for (const [index, file] of chosen.entries()) {
      await send(file, lines[index]);
      await refresh();
    }
  }

  async function send(file, line) {
    const told = (kind, sign, words) => {
      line.className = kind;
      line.textContent = `${sign} ${words}`;
    };
    if (file.size > about.largest_mib * MIB)
      return told("bad", "×", `It is larger than ${about.largest_mib} MiB.`);
    told("", "…", "is being sent");
    try {
      const answer = await post("/api/upload", file);
      return told("good", "✓", `${answer.message} ${answer.advice ?? ""}`);
    } catch (refusal) {
      return told("bad", "×", `${refusal.message} ${refusal.advice}`);
    }
  }
}
