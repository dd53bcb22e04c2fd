"use strict";
/* Python, OpenCV and ONNX Runtime, off the page's thread. Nothing in here asks a network: all
files come from the service worker's store, and the policy that it sends forbids the rest. */
const url = (name) => new URL(`files/${name}`, self.location.href).href;
const began = performance.now();
const marks = {};
const mark = (name) => { marks[name] = Math.round(performance.now() - began); };
let python, page, sessions = new Map(), tail = Promise.resolve();

const bytes = async (name) => {
  const answer = await fetch(url(name));
  if (!answer.ok) throw new Error(`${name} is missing`);
  return new Uint8Array(await answer.arrayBuffer());
};

async function loadOpenCV() {
  const binary = WebAssembly.compileStreaming(fetch(url("opencv.wasm")));
  self.opencvOptions = {
    instantiateWasm(imports, done) {
      binary.then((module) => WebAssembly.instantiate(module, imports)
        .then((instance) => done(instance, module)));
      return {};
    },
  };
  importScripts(url("opencv.js"));
  const cv = await self.cv;
  mark("opencv");
  return cv;
}

async function loadPython() {
  importScripts(url("pyodide.js"));
  const loaded = await loadPyodide({
    indexURL: url(""),
    fullStdLib: false,
    env: { HOME: "/home/pyodide", PYTHONOPTIMIZE: "2" },  // numpy without its documentation
  });
  mark("pyodide");
  return loaded;
}

async function loadSession(graph) {
  const session = await ort.InferenceSession.create(graph, {
    executionProviders: ["wasm"], graphOptimizationLevel: "all", enableCpuMemArena: false,
    enableMemPattern: false, logSeverityLevel: 3,
  });
  const list = (items) => items.map((item) => [item.name, item.type, item.shape]);
  const described = {
    runtime: `onnxruntime-web ${ort.env.versions.web || ort.env.versions.common} wasm`,
    inputs: list(session.inputMetadata), outputs: list(session.outputMetadata),
  };
  return [session, JSON.stringify(described)];
}

async function load(language) {
  importScripts(url("ort.wasm.min.js"));
  ort.env.wasm.wasmPaths = { mjs: url("ort-wasm-simd-threaded.mjs"),
    wasm: url("ort-wasm-simd-threaded.wasm") };
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = false;
  // Its program is compiled when a first graph comes: let it begin now, with none.
  const awake = ort.InferenceSession.create(new Uint8Array(8)).catch(() => {});
  const [cv, loaded, packages, core, bundle] = await Promise.all([loadOpenCV(), loadPython(),
    bytes("numpy.zip"), bytes("core.zip"), bytes("model.dermbundle")]);
  python = loaded;
  self.cvBridge = makeBridge(cv, python);
  const home = "/home/pyodide";
  python.unpackArchive(packages, "zip", { extractDir: python.runPython(
    "import sysconfig; sysconfig.get_path('platlib')") });
  python.unpackArchive(core, "zip", { extractDir: home });
  python.FS.writeFile(`${home}/model.dermbundle`, bundle);
  mark("unpacked");
  python.runPython(`import sys; sys.path.insert(0, '${home}')`);
  page = python.pyimport("page").Page(`${home}/model.dermbundle`);
  python.FS.unlink(`${home}/model.dermbundle`);
  mark("core");
  const held = page.graphs(), graphs = held.toJs();
  held.destroy();
  await awake;
  let number = 0;
  for (const graph of graphs) {
    const [session, described] = await loadSession(graph);
    sessions.set(page.announce(number, described), session);
    number += 1;
  }
  mark("networks");
  page.speak(language);
  const versions = JSON.parse(page.ready());
  mark("ready");
  return { versions, marks };
}

/* ------------------------------------------------------------------------ analysing */

const ARRAYS = { uint8: Uint8Array, float32: Float32Array };

async function drive(step, digests = null) {
  let state = JSON.parse(step);
  while (state.session) {
    const feeds = {};
    for (const [name, address, type, shape] of state.feeds) {
      const kind = ARRAYS[type], count = shape.reduce((a, b) => a * b, 1);
      const values = new kind(count);
      new Uint8Array(values.buffer).set(
        python._module.HEAPU8.subarray(address, address + values.byteLength));
      feeds[name] = new ort.Tensor(type, values, shape);
      if (digests) digests.push(await digest(values));
    }
    const given = await sessions.get(state.session).run(feeds);
    for (const [name, address, , shape] of state.outputs) {
      const values = given[name].data;
      if (values.length !== shape.reduce((a, b) => a * b, 1)) throw new Error(`${name}: size`);
      python._module.HEAPU8.set(
        new Uint8Array(values.buffer, values.byteOffset, values.byteLength), address);
      given[name].dispose();
    }
    state = JSON.parse(page.advance());
  }
  if (state.error) throw new Said(state.error);
  return state.done;
}

/** A line that is in the person's own language already. */
class Said extends Error {}

async function digest(values) {
  const found = new Uint8Array(await crypto.subtle.digest("SHA-256", values));
  return Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const STRIP = 128;  // rows, a multiple of every factor

async function readPicture(file) {
  const opened = JSON.parse(page.open(new Uint8Array(await file.arrayBuffer())));
  if (opened.error) throw new Said(opened.error);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch (error) {
    throw new Unread(error);
  }
  const { width, height, factor } = opened;
  if (bitmap.width !== width || bitmap.height !== height) {
    bitmap.close();
    throw new Unread();
  }
  const rows = height % factor || width % factor ? height : Math.min(height, STRIP);
  const canvas = new OffscreenCanvas(width, rows);
  const pen = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  try {
    for (let top = 0; top < height; top += rows) {
      const count = Math.min(rows, height - top);
      pen.fillStyle = "#fff";  // shows where a picture is transparent
      pen.fillRect(0, 0, width, rows);
      pen.drawImage(bitmap, 0, -top);
      page.rows(top, width, pen.getImageData(0, 0, width, count).data);
    }
    return await preview(bitmap);
  } finally {
    bitmap.close();
    canvas.width = canvas.height = 0;
  }
}

/** The browser does not decode this picture as its header says. */
class Unread extends Error {}

const PREVIEW = 1024;  // px, of what is shown

async function preview(bitmap) {
  const scale = Math.min(1, PREVIEW / Math.max(bitmap.width, bitmap.height));
  const size = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = new OffscreenCanvas(...size);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, ...size);
  pen.drawImage(bitmap, 0, 0, ...size);
  try {
    return await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
  } finally {
    canvas.width = canvas.height = 0;  // it holds on to the whole picture
  }
}

/* Some browsers falsify what a page reads from a canvas, so that it cannot be recognised. */
async function trueColours() {
  const size = 32, pen = new OffscreenCanvas(size, size).getContext("2d",
    { willReadFrequently: true, alpha: false });
  const drawn = new ImageData(size, size);
  for (let i = 0; i < drawn.data.length; i++) drawn.data[i] = i % 4 === 3 ? 255 : (i * 37) % 256;
  pen.putImageData(drawn, 0, 0);
  const read = pen.getImageData(0, 0, size, size).data;
  return read.every((value, i) => value === drawn.data[i]);
}

async function analyse({ file, reference, another }) {
  const start = performance.now();
  if (!await trueColours()) throw new Falsified();
  const shown = await readPicture(file);
  const digests = [];  // of what the networks see, to compare with another machine
  const found = await drive(page.begin(JSON.stringify({ reference, another })), digests);
  return { ...found, shown, digests, ms: performance.now() - start };
}

class Falsified extends Error {}

/** The case at hand as a file for the app, `pictures` as they were analysed: {file, taken}. */
async function seal({ name, passphrase, pictures, now }) {
  const taken = pictures.map((picture) => picture.taken);
  const wanted = JSON.stringify({ name, passphrase, taken, now });
  const refused = page.check_case(wanted);
  if (refused) throw new Said(refused);
  if (typeof sealedCase === "undefined") importScripts(url("seal.js"));
  const rows = (origin) => JSON.parse(page.case(wanted, origin));
  return sealedCase(rows, pictures.map(({ file }) => () => asPng(file)), passphrase);
}

/** As the app keeps a picture: upright sRGB, without loss, and without what a camera noted. */
const asPng = (file) => encoded(file, "image/png");

async function encoded(file, type, quality) {
  const bitmap = await createImageBitmap(file);
  const whole = new OffscreenCanvas(bitmap.width, bitmap.height);
  try {
    const pen = whole.getContext("2d", { willReadFrequently: true, alpha: false });
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, whole.width, whole.height);
    pen.drawImage(bitmap, 0, 0);
    return new Uint8Array(await (await whole.convertToBlob({ type, quality })).arrayBuffer());
  } finally {
    bitmap.close();
    whole.width = whole.height = 0;
  }
}

/* Of `opfs.js`, which few visits need. */
const keeping = (name) => (asked) => {
  if (typeof keepCase === "undefined") importScripts(url("opfs.js"));
  return { keepCase, openCase }[name](asked);
};

/** A referral of the case at hand as a file; `wanted` as `Page.referral_rows` was asked. */
async function refer({ wanted, pictures }) {
  const images = [];
  for (const { file } of pictures) images.push(await encoded(file, "image/jpeg", 0.92));
  const made = page.referral(JSON.stringify(wanted), images), content = made.toJs();
  made.destroy();
  return new Blob([content], { type: "application/fhir+json" });
}

let canvas, pen;

async function look({ frame }) {
  const { width, height } = frame;
  if (!canvas || canvas.width !== width || canvas.height !== height) {
    canvas = new OffscreenCanvas(width, height);
    pen = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  }
  pen.drawImage(frame, 0, 0);
  frame.close();
  return drive(page.look(width, height, pen.getImageData(0, 0, width, height).data));
}

const tasks = {
  load: ({ language }) => load(language),
  analyse,
  look,
  seal,
  keepCase: keeping("keepCase"),
  openCase: keeping("openCase"),
  referralForm: async () => JSON.parse(page.referral_form()),
  referralRows: async ({ wanted }) => {
    const found = JSON.parse(page.referral_rows(JSON.stringify(wanted)));
    if (found.error) throw new Said(found.error);
    return found.rows;
  },
  refer,
  speak: async ({ language }) => JSON.parse(page.speak(language)),
  drop: async () => page.drop(),
};

/* One after the other: the networks and Python's state are not for two at a time. */
onmessage = ({ data }) => {
  const { id, task } = data;
  tail = tail.then(() => tasks[task](data)).then(
    (result) => postMessage({ id, result }),
    (error) => postMessage({
      id,
      error: {
        said: error instanceof Said ? error.message : "",
        code: error.named
          || (error instanceof Unread ? "unread" : error instanceof Falsified ? "falsified" : ""),
        detail: String((error && error.message) || error).slice(-400),
      },
    }));
};
importScripts(url("opencv_bridge.js"));
