"use strict";
/* The page itself: words, buttons, camera. Whatever is computed is computed in the worker. */
const WORDS = @WORDS@;
const TERMS = @TERMS@, DISCLAIMER = @DISCLAIMER@, REFERENCES = @REFERENCES@;
const $ = (id) => document.getElementById(id);
const LIVE_SIDE = 640;  // px of a frame that hints are made from, as in the app
const state = {
  language: "en", screen: "welcome", ready: false, agreed: false, busy: false, live: null,
  said: null, analysis: null, another: false, pictures: [], shown: "", versions: null, came: "check",
  names: [],  // that the spot was saved or kept under
  saved: null,  // the pictures that were
};

/* ------------------------------------------------------------------------ words */

function t(english, values) {
  const said = (WORDS[state.language] || { messages: {} }).messages[english] || english;
  return said.replace(/\{(\w+)\}/g, (whole, name) =>
    values && name in values ? values[name] : whole);
}

const sentence = (line) => line.slice(0, 1).toUpperCase() + line.slice(1)
  + (/[.?!؟]$/.test(line) ? "" : ".");

function paragraphs(target, lines) {
  target.replaceChildren(...lines.map((line) => {
    const p = document.createElement("p");
    p.textContent = line;
    return p;
  }));
}

function speak(language) {
  state.language = language;
  document.documentElement.lang = language;
  document.documentElement.dir = @RIGHT_TO_LEFT@.includes(language) ? "rtl" : "ltr";
  document.querySelectorAll("[data-t]").forEach((one) => { one.textContent = t(one.dataset.t); });
  document.querySelectorAll("[data-label]").forEach((one) =>
    one.setAttribute("aria-label", t(one.dataset.label)));
  $("disclaimer").textContent = t(DISCLAIMER);
  $("card-link").href = `size-card-${language}.pdf`;
  for (const target of [$("terms"), $("about-terms")]) paragraphs(target, TERMS.map((x) => t(x)));
  const chosen = $("reference").value;
  $("reference").replaceChildren(...REFERENCES.map(([key, english, name]) =>
    new Option(t(english, { name }), key || "")));
  $("reference").value = chosen;
  for (const button of $("languages").children)
    button.setAttribute("aria-checked", String(button.lang === language));
  title();
  progress();
}

function title() {
  $("title").textContent = {
    result: t("Result"), check: t("Check a spot"), kept: t("Kept cases"),
    referral: t("Referral"),
  }[state.screen]
    || "dermedge";
}

/* ------------------------------------------------------------------------ screens */

/** On a low window the whole page scrolls. */
function toTop() {
  $("main").scrollTop = 0;
  scrollTo(0, 0);
}

function show(screen) {
  if (screen !== "check") closeLive();
  for (const name of ["welcome", "check", "result", "referral", "kept", "about"]) $(name).hidden = name !== screen;
  if (screen === "about" && state.screen !== "about") state.came = state.screen;
  state.screen = screen;
  $("back").hidden = screen === "welcome" || (screen === "check" && !state.another);
  $("help").hidden = screen === "about";
  title();
  figures();
  toTop();
  $("main").focus({ preventScroll: true });
  stay();
}

/** What a person sends along who tries the page on a device; see docs/web.md. */
function figures() {
  const { versions, marks, ms } = state;
  if (!versions) return;
  $("versions").textContent = [
    `dermedge ${versions.dermedge}, ${versions.bundle} (${versions.bundle_sha256.slice(0, 12)})`,
    `OpenCV ${versions.opencv}, ${versions.runtime}`, `start ${marks.ready} ms`,
    `last photo ${ms ? `${Math.round(ms)} ms` : "-"}`, `live ${state.rate || "-"} a second`,
    navigator.userAgent,
  ].join("; ");
}

function back() {
  if (state.screen === "about") show(state.came);
  else if (state.screen === "kept") show(state.before);
  else if (state.screen === "referral") leaveReferral();
  else if (state.screen === "result" && state.kept) leaveKept();
  else if (state.screen === "check" && state.said) {
    $("error").hidden = true;  // of a photo that is no part of it
    show("result");
  }
  else newSpot();
}

/** The device's own Back, which would leave the page and all that is at hand; false: it may. */
function deviceBack() {
  const box = $("question");
  if (box.open) box.close();  // no answer is a "no"
  // Whoever goes on while a case is kept does not hear that it failed.
  else if (state.busy) return true;
  else if ($("back").hidden) return false;
  else back();
  return true;
}

/** A step of the browser's history that its Back takes instead. */
function stay() {
  if (state.screen !== "welcome" && history.state !== "inside") history.pushState("inside", "");
}

function newSpot() {
  forget();
  ask("drop").catch(report);
  state.pictures = [];
  state.names = [];
  for (const id of ["save-name", "save-key", "save-again"]) $(id).value = "";
  $("save-fault").hidden = true;
  forgetKept();
  forgetReferral();
  state.another = false;
  show("check");
}

function forget() {
  state.said = state.analysis = null;
  if (state.shown) URL.revokeObjectURL(state.shown);
  state.shown = "";
  $("picture").removeAttribute("src");
  $("outline").replaceChildren();
  $("error").hidden = true;
}

function report(error) {
  const words = error.said || {
    unread: t("The browser cannot read this picture as its file describes it: save it as JPEG."),
    falsified: t("This browser falsifies the colours that a page reads, against tracking: switch "
      + "that off for this page, or use another browser."),
  }[error.code] || t("The analysis failed: {reason}", { reason: error.detail || String(error) });
  $("error").textContent = sentence(words);
  $("error").hidden = false;
  show("check");
}

/* ------------------------------------------------------------------------ the worker */

let worker, asked = 0;
const waiting = new Map();

function ask(task, values = {}, transfer = []) {
  return new Promise((resolve, reject) => {
    waiting.set(asked += 1, [resolve, reject]);
    worker.postMessage({ id: asked, task, ...values }, transfer);
  });
}

function startWorker() {
  worker = new Worker("worker.js");
  worker.onmessage = ({ data }) => {
    if (!waiting.has(data.id)) return;
    const [resolve, reject] = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) reject(data.error);
    else resolve(data.result);
  };
  worker.onerror = (event) => {
    const error = { said: "", code: "", detail: event.message || "worker" };
    for (const [, reject] of waiting.values()) reject(error);
    waiting.clear();
  };
}

/* ------------------------------------------------------------------------ loading */

const loading = { stage: "kept", done: 0, whole: 0, reason: "" };

function progress() {
  const mb = (bytes) => (bytes / 1e6).toFixed(1);
  const { stage, done, whole, reason } = loading;
  $("progress").textContent = {
    download: t("Downloading, for the first time only: {done} of {whole} MB",
      { done: mb(done), whole: mb(whole) }),
    kept: t("The first start takes a few seconds."),
    ready: t("Ready. It works without a network from now on."),
    https: t("This browser cannot keep the page: open it by https, not in a private window."),
    old: t("This browser is too old for the page: update it."),
    full: t("There is not enough room on this device for the page: make room, then open it again."),
    failed: t("The download did not succeed: {reason}. Try again where the network is better.",
      { reason }),
    broken: t("The program could not be started: {reason}", { reason }),
  }[stage];
  $("bar").hidden = !["download", "kept"].includes(stage);
  if (stage === "download" && whole) $("bar").value = 100 * done / whole;
  else $("bar").removeAttribute("value");
  $("loading").classList.toggle("bad", ["https", "old", "full", "failed", "broken"].includes(stage));
  $("start").disabled = $("kept-open").disabled = !(state.ready && $("agree").checked);
}

function set(stage, values = {}) {
  Object.assign(loading, { stage, ...values });
  progress();
}

/** Wait until the whole page is kept on this device and answers from there. */
async function keep() {
  if (typeof OffscreenCanvas === "undefined")
    throw Object.assign(new Error("old"), { stage: "old" });
  if (!navigator.serviceWorker || !self.isSecureContext)
    throw Object.assign(new Error("https"), { stage: "https" });
  const failed = new Promise((_, reject) => {
    navigator.serviceWorker.addEventListener("message", ({ data }) => {
      if (data.failed) {
        if (!navigator.serviceWorker.controller)
          reject(Object.assign(new Error(data.failed), { stage: data.full ? "full" : "failed" }));
      } else if (!navigator.serviceWorker.controller) set("download", data);
    });
  });
  failed.catch(() => {});
  const controlled = new Promise((resolve) => {
    if (navigator.serviceWorker.controller) resolve();
    navigator.serviceWorker.addEventListener("controllerchange", () => resolve());
  });
  const registration = await navigator.serviceWorker.register("sw.js", { updateViaCache: "none" })
    .catch((error) => {
      // Without a network, the version that is here goes on.
      if (navigator.serviceWorker.controller) return null;
      // A browser that refuses says so by another error than a network that fails.
      throw Object.assign(error, { stage: error.name === "TypeError" ? "failed" : "https" });
    });
  if (registration) {
    watch(registration);
    // A page that was reloaded past what is kept is nobody's until it is asked for.
    if (registration.active && !navigator.serviceWorker.controller)
      registration.active.postMessage("claim");
  }
  await Promise.race([controlled, failed]);
}

function watch(registration) {
  let outdated = false;  // another page of this browser took the new version
  const offer = () => { $("update").hidden = !registration.waiting && !outdated; };
  const follow = () => {
    if (registration.installing) registration.installing.addEventListener("statechange", offer);
  };
  offer();
  follow();  // one that was found before anybody listened
  registration.addEventListener("updatefound", follow);
  if (navigator.serviceWorker.controller)
    navigator.serviceWorker.addEventListener("controllerchange", () => {
      outdated = true;
      offer();
    });
  $("take-over").onclick = async () => {
    if (!await mayGo(
      t("The photos of the spot at hand are not saved: they go when the new version comes."),
      t("Use it now"))) return;
    if (!registration.waiting) {
      location.reload();
      return;
    }
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload());
    registration.waiting.postMessage("take over");
  };
}

async function begin() {
  try {
    await keep();
    set("kept");
    if (navigator.storage && navigator.storage.persist) navigator.storage.persist().catch(() => {});
    startWorker();
    const language = state.language;
    const { versions, marks } = await ask("load", { language });
    if (language !== state.language) await ask("speak", { language: state.language });
    state.ready = true;
    state.versions = versions;
    state.marks = marks;
    $("demonstration").hidden = !versions.procedural;
    set("ready");
  } catch (error) {
    set(error.stage || "broken",
      { reason: String(error.detail || error.message || error).slice(-300) });
  }
}

/* ------------------------------------------------------------------------ pictures */

/** While one thing is at work nothing else is pressed: what comes of it would be another spot's. */
function cover(on) {
  state.busy = on;
  const all = "header, #update, #check > :not(#working), #result, #kept";
  for (const one of document.querySelectorAll(all)) one.inert = on;
}

/** `fresh` : it was taken now, and is not a file of whatever day. */
async function judge(file, fresh = false) {
  if (!file || state.busy) return;
  cover(true);
  closeLive();
  $("error").hidden = true;
  $("working").hidden = false;
  $("working").scrollIntoView({ block: "end" });
  try {
    const another = state.another && state.said !== null;
    const reference = $("reference").value || null;
    // Read now: a stick that is pulled, or a phone that clears up, leaves nothing to be saved later.
    const photo = new Blob([await file.arrayBuffer()], { type: file.type });
    const found = await ask("analyse", { file: photo, reference, another, fresh });
    forget();
    forgetKept();
    state.pictures = [...(another ? state.pictures : []), photo];
    state.said = found.said;
    state.analysis = found.analysis;
    state.shown = URL.createObjectURL(found.shown);
    state.ms = found.ms;
    state.another = false;
    $("picture").src = state.shown;
    await $("picture").decode().catch(() => {});
    say();
    show("result");
  } catch (error) {
    report(error);
  } finally {
    cover(false);
    $("working").hidden = true;
    $("camera").value = $("gallery").value = "";
  }
}

function outlined(svg, polygons, [width, height]) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const way = polygons.map((points) =>
    `M${points.map(([x, y]) => `${x + 0.5} ${y + 0.5}`).join("L")}Z`).join("");
  svg.replaceChildren(...["edge", "line"].map((name) => {
    const path = document.createElementNS(svg.namespaceURI, "path");
    path.setAttribute("d", way);
    path.setAttribute("class", name);
    return path;
  }));
}

const SHAPES = {
  circle: '<circle cx="28" cy="28" r="25"/>',
  triangle: '<path d="M28 4 54 51H2Z"/>',
  octagon: '<path d="M18 3h20l15 15v20l-15 15H18L3 38V18Z"/>',
  square: '<rect x="5" y="5" width="46" height="46" rx="4"/>',
};

function card(heading, rows) {
  const box = document.createElement("div");
  box.className = "card";
  const head = document.createElement("h3");
  head.textContent = heading;
  box.append(head);
  if (Array.isArray(rows[0])) {
    const list = document.createElement("dl");
    for (const [name, value] of rows) {
      const dt = document.createElement("dt"), dd = document.createElement("dd");
      [dt.textContent, dd.textContent] = [name, value];
      list.append(dt, dd);
    }
    box.append(list);
  } else for (const line of rows) {
    const p = document.createElement("p");
    p.textContent = line;
    box.append(p);
  }
  return box;
}

/** Put the result into words; again after a change of the language. */
function say() {
  const { said, analysis } = state;
  const band = $("band");
  band.className = "card band";
  band.style.color = `var(--${said.style}-text)`;
  band.style.background = `var(--${said.style})`;
  $("sign").innerHTML = `<g fill="currentColor">${SHAPES[said.shape]}</g>`
    + `<text x="28" y="${said.shape === "triangle" ? 46 : 39}" text-anchor="middle" font-size="30" `
    + `font-weight="700" fill="var(--${said.style})">${said.mark}</text>`;
  $("band-title").textContent = said.title;
  for (const name of ["estimate", "several"]) {
    $(name).textContent = said[name];
    $(name).hidden = !said[name];
  }
  const cards = [card(t("What to do next"), [said.advice])];
  if (said.demonstration) {
    cards.unshift(card("dermedge", [said.demonstration]));
    cards[0].classList.add("demo");
  }
  const remarks = said.scale ? [...said.remarks, said.scale] : said.remarks;
  if (remarks.length) cards.push(card(t("About this picture"), remarks));
  if (said.measures.length) cards.push(card(t("What was measured"), said.measures));
  if (said.limits.length) cards.push(card(t("What limits this estimate"), said.limits));
  $("cards").replaceChildren(...cards);
  $("details").replaceChildren(
    ...(said.classes.length ? [card(t("How the model sees it"), said.classes)] : []),
    card(t("Versions"), [said.versions]));
  outlined($("outline"), said.outline, analysis.size);
  for (const one of document.querySelectorAll("#shown img, #earlier img"))
    one.alt = one.nextElementSibling.querySelector("[d^=M]")
      ? t("The photo, with the outline that was found")
      : t("The photo, in which no outline was found");
}

/** The day that it is here, as the app names its files. */
const dayOf = (when) => [when.getFullYear(), when.getMonth() + 1, when.getDate()]
  .map((part) => String(part).padStart(2, "0")).join("-");

function download(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Save the case at hand as a sealed file, which goes wherever the person puts it. */
async function save() {
  const fault = $("save-fault");
  fault.hidden = true;
  cover(true);  // whoever goes on meanwhile does not hear that it failed
  try {
    if ($("save-key").value !== $("save-again").value)
      throw { said: t("The two are not the same.") };
    const file = await ask("seal", { name: $("save-name").value, passphrase: $("save-key").value,
      pictures: state.pictures, now: new Date().toISOString() });
    state.names.push($("save-name").value);
    state.saved = state.pictures;
    download(file, `cases-${dayOf(new Date())}.dermcases`);
    $("save-key").value = $("save-again").value = "";
    return file;
  } catch (error) {
    fault.textContent = sentence(error.said
      || t("The file could not be saved: {reason}", { reason: error.detail || String(error) }));
    fault.hidden = false;
    return null;
  } finally {
    cover(false);
  }
}

/* ------------------------------------------------------------------------ live */

async function openLive() {
  $("error").hidden = true;
  const live = state.live = { stream: null, looks: 0, since: performance.now() };
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: {
      facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 720 } } });
    if (state.live !== live) {  // somebody went on before the camera was allowed
      stream.getTracks().forEach((track) => track.stop());
      return;
    }
    live.stream = stream;
    stream.getVideoTracks()[0].onended = () => {
      if (state.live !== live) return;
      closeLive();
      report({ said: t("The camera stopped. Open the live picture again, or take a photo.") });
    };
    live.since = performance.now();
    $("video").srcObject = stream;
    await $("video").play();
    if (state.live !== live) return;
  } catch (error) {
    if (state.live !== live) return;
    closeLive();
    report({ said: t("The camera cannot be used: allow it in the browser's settings, or take a "
      + "photo.") });
    return;
  }
  $("stage").hidden = $("shutter").hidden = false;
  $("intro").hidden = $("take").hidden = true;
  $("live-switch").textContent = t($("live-switch").dataset.t = "Close the live picture");
  $("guidance").textContent = t("Looking at the picture.");
  hint();
}

function closeLive() {
  if (state.live && state.live.stream) state.live.stream.getTracks().forEach((track) => track.stop());
  state.live = null;
  $("video").srcObject = null;
  $("live").replaceChildren();
  $("stage").hidden = $("shutter").hidden = true;
  $("intro").hidden = $("take").hidden = false;
  $("live-switch").textContent = t($("live-switch").dataset.t = "Live picture");
}

async function hint() {
  const live = state.live, video = $("video");
  if (!live) return;
  try {
    const scale = Math.min(1, LIVE_SIDE / Math.max(video.videoWidth, video.videoHeight));
    const size = [video.videoWidth, video.videoHeight].map((side) => Math.round(side * scale));
    const frame = typeof VideoFrame !== "undefined" ? new VideoFrame(video)
      : await createImageBitmap(video, {
        resizeWidth: size[0], resizeHeight: size[1], resizeQuality: "medium" });
    const found = await ask("look", { frame, size }, [frame]);
    if (state.live !== live) return;
    live.looks += 1;
    state.rate = (1000 * live.looks / (performance.now() - live.since)).toFixed(1);
    $("guidance").className = `panel ${found.good ? "good" : "wait"}`;
    if ($("guidance").textContent !== found.guidance) $("guidance").textContent = found.guidance;
    outlined($("live"), found.polygons, found.size);
  } catch (error) {
    if (state.live !== live) return;
    closeLive();  // its last hint would stay
    report(error.said !== undefined ? error : { detail: String(error) });
    return;
  }
  requestAnimationFrame(hint);
}

/** A photo of its own: a frame of the live picture has other colours. */
async function shoot() {
  const { live } = state, track = live && live.stream && live.stream.getVideoTracks()[0];
  if (!track || typeof ImageCapture === "undefined") {
    $("camera").click();
    return;
  }
  $("shutter").disabled = true;
  try {
    const photo = await new ImageCapture(track).takePhoto();
    if (state.live === live) await judge(photo, true);
  } catch (error) {
    if (state.live === live) $("camera").click();
  } finally {
    $("shutter").disabled = false;
  }
}

/* ------------------------------------------------------------------------ begin */

function choose(language) {
  speak(language);
  if (state.ready) ask("speak", { language }).then((said) => {
    if (said && state.said) {
      state.said = said;
      say();
    }
  });
}

function prepare() {
  for (const [language, name] of Object.entries(@LANGUAGES@)) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", lang: language, textContent: name });
    button.setAttribute("role", "radio");
    button.onclick = () => choose(language);
    $("languages").append(button);
  }
  const wanted = (navigator.languages || [navigator.language]).map((x) => x.slice(0, 2));
  speak(wanted.find((x) => x === "en" || x in WORDS) || "en");
  const apple = /iPad|iPhone|iPod/.test(navigator.userAgent)
    || (navigator.platform === "MacIntel" && navigator.maxTouchPoints > 1);
  const installed = navigator.standalone || matchMedia("(display-mode: standalone)").matches;
  for (const id of ["ios", "ios-again", "keep-ios"]) $(id).hidden = !apple || installed;
  $("agree").onchange = progress;
  $("start").onclick = () => show("check");
  $("back").onclick = back;
  $("help").onclick = () => show("about");
  $("gallery").onchange = (event) => judge(event.target.files[0]);
  // A browser that opens no camera for it lets one choose a file there, too.
  $("camera").onchange = (event) => judge(event.target.files[0], "capture" in $("camera"));
  $("live-switch").onclick = () => (state.live ? closeLive() : openLive());
  $("shutter").onclick = shoot;
  $("another").onclick = () => { state.another = true; show("check"); };
  $("new").onclick = newSpot;
  $("print").onclick = () => print();
  $("save-form").onsubmit = (event) => {
    event.preventDefault();
    save();
  };
  prepareKept();
  prepareReferral();
  // Left for another page and brought back by "Back" it would show what the last person left.
  addEventListener("pageshow", ({ persisted }) => {
    if (!persisted) return;
    newSpot();
    location.reload();
  });
  addEventListener("popstate", ({ state: entry }) => {
    if (entry) return;  // forward
    if (deviceBack()) stay();
    else history.back();
  });
  addEventListener("beforeprint", () => { document.querySelector("details").open = true; });
  if (!navigator.mediaDevices) $("live-switch").hidden = true;
}

prepare();
begin();
