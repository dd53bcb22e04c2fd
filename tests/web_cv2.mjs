// Runs recorded calls of cv2 through the page's own cv2 in Pyodide, under Node:
// node web_cv2.mjs PYODIDE OPENCV_JS NUMPY_WHEEL BRIDGE CV2_PY CALLS RESULTS
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const [pyodide, opencv, wheel, bridge, shim, calls, results] = process.argv.slice(2);
const require = createRequire(import.meta.url);
const { loadPyodide } = require(path.join(pyodide, "pyodide.js"));
let cv = require(opencv);
if (cv instanceof Promise) cv = await cv;
else if (!cv.Mat) await new Promise((done) => { cv.onRuntimeInitialized = done; });
// OpenCV.js prints all of itself with an error that nobody caught.
for (const event of ["uncaughtException", "unhandledRejection"]) {
  process.removeAllListeners(event);
  process.on(event, (error) => {
    fs.writeSync(2, String((error && error.message) || error).slice(-2000));
    process.exit(1);
  });
}
const python = await loadPyodide({ indexURL: pyodide + path.sep });
python.unpackArchive(new Uint8Array(fs.readFileSync(wheel)), "wheel");
const makeBridge = new Function(fs.readFileSync(bridge, "utf8") + "; return makeBridge;")();
globalThis.cvBridge = makeBridge(cv, python);
python.FS.writeFile("/home/pyodide/cv2.py", fs.readFileSync(shim));
python.FS.writeFile("/home/pyodide/calls", fs.readFileSync(calls));
python.runPython(`
import pickle, cv2
results = []
for name, args, kwargs in pickle.load(open("/home/pyodide/calls", "rb")):
    try:
        if name == "detectMarkers":
            options = cv2.aruco.DetectorParameters()
            options.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
            known = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
            results.append(cv2.aruco.ArucoDetector(known, options).detectMarkers(*args)[:2])
        elif name == "constant":
            results.append(getattr(cv2, args[0]))
        else:
            results.append(getattr(cv2, name)(*args, **kwargs))
    except (cv2.error, AttributeError) as error:
        results.append(("error", type(error).__name__, str(error)))
pickle.dump(results, open("/home/pyodide/results", "wb"))
`);
fs.writeFileSync(results, python.FS.readFile("/home/pyodide/results"));
process.exit(0);
