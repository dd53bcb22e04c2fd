"use strict";
/* Python, OpenCV and ONNX Runtime, off the page's thread. Nothing in here asks a network: all
files come from the service worker's store, and the policy that it sends forbids the rest. */
const url = (name) => new URL(`files/${name}`, self.location.href).href;
// All now: later they might be those of an update that another page of this browser took.
importScripts(...["opencv_bridge.js", "seal.js", "unseal.js", "opfs.js"].map(url));
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
  const count = page.graphs();
  await awake;
  for (let number = 0; number < count; number++) {
    // Read where it lies in Python's memory, which does not move until the next call.
    const graph = page.graph(number), held = graph.getBuffer("u8");
    const [session, described] = await loadSession(held.data);
    held.release();
    graph.destroy();
    sessions.set(page.announce(number, described), session);
  }
  mark("networks");
  page.speak(language);
  await trueColours();  // and how pixels are read
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

const hexed = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
const digest = async (values) => hexed(await sha256(values));

const STRIP = 128;  // rows, a multiple of every factor

/* A large JPEG is halved by libjpeg while it is decoded, on the desktop and, where a browser lets
a page ask for that, here, to the same bytes. Whether it does tells a JPEG of 16x16 px. */
const PROBE = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABQODxIPDRQSEBIXFRQYHjIhHhwcHj0sLiQySUBMS0dARkVQWnNiUFVtVk"
  + "VGZIhlbXd7gYKBTmCNl4x9lnN+gXz/2wBDARUXFx4aHjshITt8U0ZTfHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8"
  + "fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHz/wAARCAAQABADASIAAhEBAxEB/8QAFgABAQEAAAAAAAAAAAAAAAAABAEC/8"
  + "QAJxAAAQIDBQkAAAAAAAAAAAAAAQIRAAMEBRIhUZEGFDFBYmNxgfD/xAAVAQEBAAAAAAAAAAAAAAAAAAACA//EAB4R"
  + "AAIABgMAAAAAAAAAAAAAAAIRAAEDIUFREhOx/9oADAMBAAIRAxEAPwAu5BbMsODkfuUbp3trsqlN1OS/jKFzaEruvN"
  + "9BPA6xNoavCQyAXvY6Q0JIHcc6friVWt2VJjyuWFqP/9k=";
const HALVED = "8f011a0cb25ec5713e5288a708b93fe665c75b985673b2a755459344b8809d56";  // its RGBA
let halves;

async function decodeHalved(data, desiredWidth, desiredHeight) {
  const decoder = new ImageDecoder({ data, type: "image/jpeg", desiredWidth, desiredHeight });
  try {
    const { image } = await decoder.decode();
    try {
      return await createImageBitmap(image);
    } finally {
      image.close();
    }
  } finally {
    decoder.close();
  }
}

async function canHalve() {
  if (typeof ImageDecoder === "undefined") return false;
  try {
    const bitmap = await decodeHalved(Uint8Array.from(atob(PROBE), (x) => x.charCodeAt(0)), 8, 8);
    const pen = new OffscreenCanvas(8, 8).getContext("2d",
      { willReadFrequently: true, alpha: false });
    pen.drawImage(bitmap, 0, 0);
    bitmap.close();
    return await digest(pen.getImageData(0, 0, 8, 8).data) === HALVED;
  } catch (error) {
    return false;
  }
}

async function readPicture(file) {
  const data = await file.arrayBuffer();
  const opened = JSON.parse(page.open(new Uint8Array(data)));
  if (opened.error) throw new Said(opened.error);
  let { width, height, factor } = opened, bitmap;
  const halved = opened.kind === "jpeg" && factor > 1 && await (halves ||= canHalve());
  if (halved) [width, height, factor] = [Math.ceil(width / factor), Math.ceil(height / factor), 1];
  try {
    bitmap = await (halved ? decodeHalved(data, width, height) : createImageBitmap(file));
  } catch (error) {
    throw new Unread(error);
  }
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
      await copyPixels(canvas, pen, room(4 * width * count), width, count);
      page.rows(top, width);
    }
    const large = Math.max(opened.width, opened.height) > PREVIEW;
    return large || opened.kind !== "jpeg" ? await preview(bitmap) : file;
  } finally {
    bitmap.close();
    canvas.width = canvas.height = 0;
  }
}

/** So many bytes of Python's memory, where it looks for pixels. */
function room(size) {
  const address = page.room(size);
  return python._module.HEAPU8.subarray(address, address + size);
}

let direct = typeof VideoFrame !== "undefined";

/** RGBA of the upper left of a canvas. What getImageData gives stays until the collector comes. */
async function copyPixels(canvas, pen, into, width, height) {
  if (!direct) {
    into.set(pen.getImageData(0, 0, width, height).data);
    return;
  }
  const frame = new VideoFrame(canvas, { timestamp: 0, alpha: "discard" });
  try {
    await frame.copyTo(into, { format: "RGBA", rect: { x: 0, y: 0, width, height } });
  } finally {
    frame.close();
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
  const size = 32, canvas = new OffscreenCanvas(size, size);
  const pen = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  const drawn = new ImageData(size, size);
  for (let i = 0; i < drawn.data.length; i++) drawn.data[i] = i % 4 === 3 ? 255 : (i * 37) % 256;
  pen.putImageData(drawn, 0, 0);
  const read = new Uint8Array(drawn.data.length);
  const same = () => read.every((value, i) => value === drawn.data[i]);
  if (direct) {
    await copyPixels(canvas, pen, read, size, size).catch(() => {});
    direct = same();  // not every browser has this order of the colours
  }
  if (!direct) await copyPixels(canvas, pen, read, size, size);
  return same();
}

async function analyse({ file, reference, another, fresh = false, compared }) {
  const now = new Date().toISOString();
  const start = performance.now();
  if (!await trueColours()) throw new Falsified();
  const shown = await readPicture(file);
  const digests = compared ? [] : null;  // of what the networks see, for edge_app.qa.web alone
  const options = JSON.stringify({ reference, another, fresh, now });
  const found = await drive(page.begin(options), digests);
  return { ...found, shown, digests, ms: performance.now() - start };
}

class Falsified extends Error {}

/** The case at hand as a file for the app, `pictures` as they were analysed. */
async function seal({ name, passphrase, pictures, now }) {
  const wanted = JSON.stringify({ name, passphrase, now });
  const refused = page.check_case(wanted);
  if (refused) throw new Said(refused);
  const rows = (origin) => JSON.parse(page.case(wanted, origin));
  return sealedCase(rows, pictures.map((file) => () => asPng(file)), passphrase);
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

/** A referral of the case at hand as a file; `wanted` as `Page.referral_rows` was asked. */
async function refer({ wanted, pictures }) {
  const images = [];
  for (const file of pictures) images.push(await encoded(file, "image/jpeg", 0.92));
  const made = page.referral(JSON.stringify(wanted), images), content = made.toJs();
  made.destroy();
  return new Blob([content], { type: "application/fhir+json" });
}

let canvas, pen;

/** A frame's RGBA, whole, in Python's memory: its size, or null where a browser does not give that.
Drawn on a canvas, each frame would leave megabytes behind. */
async function copyFrame(frame) {
  if (!direct || !(frame instanceof VideoFrame) || frame.rotation || frame.flip) return null;
  const { width, height } = frame.visibleRect;
  const planes = await frame.copyTo(room(4 * width * height), { format: "RGBA" });
  return planes.length === 1 && planes[0].stride === 4 * width ? [width, height] : null;
}

async function look({ frame, size: [width, height] }) {
  const whole = await copyFrame(frame).catch(() => null);
  if (whole) {
    frame.close();
    return drive(page.look(...whole, width, height));
  }
  if (!canvas || canvas.width !== width || canvas.height !== height) {
    canvas = new OffscreenCanvas(width, height);
    pen = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  }
  pen.drawImage(frame, 0, 0, width, height);
  frame.close();
  await copyPixels(canvas, pen, room(4 * width * height), width, height);
  return drive(page.look(width, height, width, height));
}

const tasks = {
  load: ({ language }) => load(language),
  analyse,
  look,
  seal,
  keepCase,
  openCase,
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
