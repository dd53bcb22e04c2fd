"use strict";
/* Cases that the person asked to keep: sealed files in this browser's private file system, which
`opfs.js` writes and opens in the worker. A name says when a file was kept, and nothing else. */
const KEPT = /^(\d{4}-\d\d-\d\dT\d\d)-(\d\d)-(\d\dZ) [0-9a-f]{8}\.dermcases$/;
// Pages of one host share the file system.
const KEPT_FOLDER = encodeURIComponent(`kept ${new URL(".", location.href).pathname}`);

const canKeep = () => Boolean(navigator.storage && navigator.storage.getDirectory
  && self.FileSystemFileHandle && FileSystemFileHandle.prototype.move);

/** The folder; null where nothing was kept yet, or this browser keeps nothing. */
async function keptFolder() {
  if (!canKeep()) return null;
  const root = await navigator.storage.getDirectory();
  return root.getDirectoryHandle(KEPT_FOLDER).catch((error) => {
    if (error.name === "NotFoundError") return null;
    throw error;
  });
}

/** Names of the kept files, the newest first; what an end of the browser cut off goes. */
async function keptNames() {
  const folder = await keptFolder(), names = [];
  if (folder) for await (const name of folder.keys()) names.push(name);
  for (const name of names)  // another page may just write it: then it is locked
    if (name.endsWith(".part")) await folder.removeEntry(name).catch(() => {});
  return names.filter((name) => KEPT.test(name)).sort().reverse();
}

const keptWhen = (name) => name.replace(KEPT, "$1:$2:$3");

function inWords(stamp, time = { timeStyle: "short" }) {
  return new Intl.DateTimeFormat(`${state.language}-u-nu-latn`,
    { dateStyle: "medium", ...time }).format(new Date(stamp));
}

/** As the app says it: of a file the day alone. */
function takenInWords({ taken, dating }) {
  const when = inWords(taken, dating ? {} : undefined);
  if (dating === "unknown") return t("Date not known (added {when})", { when });
  return t("Photo taken: {date}",
    { date: dating ? t("{when} (from a file)", { when }) : when });
}

/** Show the ways to what is kept where there is something. */
async function offerKept() {
  const names = await keptNames().catch(() => []);
  $("kept-open").hidden = $("kept-again").hidden = !names.length;
  return names;
}

function keptFault(error) {
  return sentence(error.said || {
    full: t("There is not enough room on this device: nothing was kept. Save the file instead."),
    wrong: t("the passphrase is wrong"),
    damaged: t("This file is damaged: it cannot be opened."),
    other: t("This file is of another version of the page: save it and open it in the app."),
  }[error.code] || t("It did not succeed: {reason}", { reason: error.detail || String(error) }));
}

/* ------------------------------------------------------------------------ keeping */

async function keepThis(event) {
  event.preventDefault();
  $("keep-fault").hidden = true;
  cover(true);  // whoever goes on meanwhile does not hear that it failed
  try {
    if ($("keep-key").value !== $("keep-again").value)
      throw { said: t("The two are not the same.") };
    const now = new Date().toISOString();
    const random = Array.from(crypto.getRandomValues(new Uint8Array(4)),
      (byte) => byte.toString(16).padStart(2, "0")).join("");
    navigator.storage.persist().catch(() => {});  // some browsers ask, and wait for an answer
    await ask("keepCase", {
      folder: KEPT_FOLDER, file: `${now.slice(0, 19).replaceAll(":", "-")}Z ${random}.dermcases`,
      name: $("keep-name").value, passphrase: $("keep-key").value, pictures: state.pictures, now });
    const said = [t("Kept. It is under “Kept cases”.")];
    if (!await navigator.storage.persisted().catch(() => false))
      said.push(t("The browser may delete it when the device is short of room: "
        + "save the file, too."));
    $("keep-done").textContent = said.join(" ");
    $("keep-form").hidden = !($("keep-done").hidden = false);
    state.names.push($("keep-name").value);
    state.saved = state.pictures;
    for (const id of ["keep-name", "keep-key", "keep-again"]) $(id).value = "";
    await offerKept();
  } catch (error) {
    $("keep-fault").textContent = keptFault(error);
    $("keep-fault").hidden = false;
  } finally {
    cover(false);
  }
}

/** Another result: it can be kept, too, and is none of a kept case. */
function forgetKept() {
  state.kept = null;
  for (const id of ["keep-name", "keep-key", "keep-again"]) $(id).value = "";
  $("keep-fault").hidden = $("keep-done").hidden = $("kept-of").hidden = true;
  $("keep-form").hidden = $("keeping").open = false;
  $("result").classList.remove("kept");
  $("earlier").querySelectorAll("img").forEach((one) => URL.revokeObjectURL(one.src));
  $("earlier").replaceChildren();
}

/* ------------------------------------------------------------------------ kept cases */

async function showKept() {
  if (["welcome", "check"].includes(state.screen)) state.before = state.screen;
  $("kept-fault").hidden = true;
  try {
    const names = await offerKept();
    $("kept-list").replaceChildren(...names.map(keptRow));
    if (names.length === 1) $("kept-list").firstChild.open = true;
    $("kept-none").hidden = names.length > 0;
  } catch (error) {
    $("kept-fault").textContent = keptFault(error);
    $("kept-fault").hidden = false;
  }
  show("kept");
}

function keptRow(name) {
  const row = $("kept-row").content.firstElementChild.cloneNode(true);
  const part = (selector) => row.querySelector(selector);
  row.querySelectorAll("[data-t]").forEach((one) => { one.textContent = t(one.dataset.t); });
  part("summary").textContent = inWords(keptWhen(name));
  /** One after the other, and what goes wrong in one line. */
  const guarded = (deed) => async (event) => {
    event.preventDefault();
    const pressed = row.querySelectorAll("button");
    part(".bad").hidden = true;
    pressed.forEach((button) => { button.disabled = true; });
    try {
      await deed();
    } catch (error) {
      part(".bad").textContent = keptFault(error);
      part(".bad").hidden = false;
    } finally {
      pressed.forEach((button) => { button.disabled = false; });
    }
  };
  part("form").onsubmit = guarded(async () => {
    await openKept(name, part("input").value);
    part("input").value = "";
  });
  part(".save").onclick = guarded(async () => {
    const file = await (await (await keptFolder()).getFileHandle(name)).getFile();
    download(new Blob([file], { type: "application/octet-stream" }),
      `cases-${dayOf(new Date(keptWhen(name)))}.dermcases`);
  });
  part(".delete").onclick = guarded(async () => {
    if (!await sure(t("Delete the case of {date} from this device? Nothing brings it back.",
      { date: inWords(keptWhen(name)) }), t("Keep it"), t("Delete"))) return;
    await (await keptFolder()).removeEntry(name);
    await showKept();
  });
  return row;
}

function sure(words, no, yes) {
  const box = $("question");
  $("question-words").textContent = words;
  [$("question-no").textContent, $("question-yes").textContent] = [no, yes];
  box.returnValue = "";
  box.showModal();
  return new Promise((answered) => {
    box.onclose = () => answered(box.returnValue === "yes");
  });
}

/** Whether the spot at hand may go: one that nobody has saved yet where the person says so alone. */
const mayGo = async (words, yes) => !state.said || state.kept || state.saved === state.pictures
  || sure(words, t("Back"), yes);

async function openKept(name, passphrase) {
  // "Another photo" leads here, too.
  if (!await mayGo(
    t("The photos of the spot at hand are not saved: they go when you open another case."),
    t("Open"))) return;
  cover(true);
  const found = await ask("openCase", { folder: KEPT_FOLDER, file: name, passphrase })
    .finally(() => cover(false));
  forget();
  forgetKept();
  state.pictures = [];
  state.another = false;
  state.kept = name;
  state.said = found.said;
  state.analysis = found.analyses.at(-1);
  state.shown = URL.createObjectURL(found.shown.pop());
  $("picture").src = state.shown;
  await $("picture").decode().catch(() => {});
  $("kept-name").textContent = found.name;
  $("kept-taken").textContent = takenInWords(found);
  $("kept-of").hidden = false;
  $("result").classList.add("kept");
  $("earlier").replaceChildren(...found.shown.map((shown, at) => earlier(shown,
    found.outlines[at], found.analyses[at].size)));
  show("result");
  say();
}

function earlier(shown, polygons, size) {
  const box = document.createElement("div"), picture = document.createElement("img");
  picture.src = URL.createObjectURL(shown);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  outlined(svg, polygons, size);
  box.append(picture, svg);
  return box;
}

/** From an opened case back to the list; it is forgotten here. */
function leaveKept() {
  newSpot();
  state.screen = state.before;
  return showKept();
}

function prepareKept() {
  state.kept = null;
  state.before = "welcome";
  $("keeping").hidden = !canKeep();
  $("keep-form").onsubmit = keepThis;
  $("kept-open").onclick = $("kept-again").onclick = showKept;
  offerKept();
}
