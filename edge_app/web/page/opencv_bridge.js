"use strict";
/* OpenCV.js for `python/cv2.py`: arrays cross as addresses in Pyodide's memory, nothing is boxed.

A call is a function's name, a form of one letter an argument, and plain numbers:
m  array: address, rows, columns, depth, channels        o  array to give back
i  as m, and written back                     v  so many arrays: count, then each as m
V  arrays to give back, of any number         z  size: width, height
p  point: x, y                                s  scalar: four numbers
r  rotated rectangle: x, y, width, height, degrees
n  number or truth value, as it is
Sizes of what is given back go to `meta` (int32), numbers to `numbers` (float64). */
function makeBridge(cv, python) {
  const MOMENTS = ["m00", "m10", "m01", "m20", "m11", "m02", "m30", "m21", "m12", "m03", "mu20",
    "mu11", "mu02", "mu30", "mu21", "mu12", "mu03", "nu20", "nu11", "nu02", "nu30", "nu21", "nu12",
    "nu03"];
  const SHIFT = cv.CV_8UC2 - cv.CV_8UC1;  // what one more channel adds to a type
  let meta = 0, most = 0, numbers = 0, waiting = [];
  const bytes = () => python._module.HEAPU8;

  function input(owned, address, rows, columns, depth, channels) {
    const mat = new cv.Mat(rows, columns, depth + SHIFT * (channels - 1));
    owned.push(mat);
    const size = rows * columns * mat.elemSize();
    if (size) new Uint8Array(mat.data.buffer, mat.data.byteOffset, size).set(
      bytes().subarray(address, address + size));
    return mat;
  }

  function output(mat, address) {
    const whole = mat.isContinuous() ? mat : mat.clone();
    const size = whole.rows * whole.cols * whole.elemSize();
    if (size) bytes().set(new Uint8Array(whole.data.buffer, whole.data.byteOffset, size), address);
    if (whole !== mat) whole.delete();
  }

  function tell(values) {
    new Float64Array(bytes().buffer, numbers, values.length).set(values);
  }

  function report(result) {
    if (result === undefined || result === null) return;
    if (typeof result === "number" || typeof result === "boolean") tell([Number(result)]);
    else if (Array.isArray(result)) tell(result);
    else if ("m00" in result) tell(MOMENTS.map((name) => result[name]));
    else if ("angle" in result) tell([result.center.x, result.center.y, result.size.width,
      result.size.height, result.angle]);
    else tell([result.x, result.y, result.width, result.height]);
  }

  function read(form, flat, owned, outputs, inout) {
    let at = 0;
    const next = (count) => flat.slice(at, at += count);
    return Array.from(form, (letter) => {
      if (letter === "m") return input(owned, ...next(5));
      if (letter === "i") {
        const [address, ...shape] = next(5);
        const mat = input(owned, address, ...shape);
        inout.push([mat, address]);
        return mat;
      }
      if (letter === "o") {
        const mat = new cv.Mat();
        owned.push(mat);
        outputs.push(mat);
        return mat;
      }
      if (letter === "v") {
        const vector = new cv.MatVector();
        owned.push(vector);
        for (let left = next(1)[0]; left; left--) vector.push_back(input(owned, ...next(5)));
        return vector;
      }
      if (letter === "V") {
        const vector = new cv.MatVector();
        owned.push(vector);
        outputs.push(vector);
        return vector;
      }
      if (letter === "z") return new cv.Size(...next(2));
      if (letter === "p") return new cv.Point(...next(2));
      if (letter === "s") return new cv.Scalar(...next(4));
      if (letter === "r") {
        const [x, y, width, height, angle] = next(5);
        return new cv.RotatedRect({ x, y }, { width, height }, angle);
      }
      return next(1)[0];
    });
  }

  function run(name, receiver, form, flat) {
    const owned = [], outputs = [], inout = [];
    let kept = [];
    try {
      let result = receiver[name](...read(form, flat, owned, outputs, inout));
      if (result instanceof cv.Mat) {  // some functions give their array back
        owned.push(result);
        outputs.push(result);
        result = null;
      }
      report(result);
      inout.forEach(([mat, address]) => output(mat, address));
      for (const made of outputs) {
        if (made instanceof cv.Mat) kept.push(made);
        else for (let i = 0; i < made.size(); i++) {
          const part = made.get(i);
          owned.push(part);
          kept.push(part);
        }
      }
      if (4 * kept.length > most) return -2 - kept.length;  // ask again, with more room
      const sizes = new Int32Array(bytes().buffer, meta, 4 * kept.length);
      kept.forEach((mat, i) => sizes.set(
        [mat.rows, mat.cols, mat.type() % SHIFT, mat.channels()], 4 * i));
      waiting = kept;
      return kept.length;
    } catch (error) {
      kept = [];
      const told = typeof error === "number" ? cv.exceptionFromPtr(error).msg : error;
      bridge.error = `${name}: ${told && told.message ? told.message : told}`;
      return -1;
    } finally {
      owned.forEach((one) => { if (!kept.includes(one) || waiting !== kept) one.delete(); });
    }
  }

  const bridge = {
    error: "",
    /** Addresses of the arrays that sizes (int32, `count` of them) and numbers are told by. */
    prepare(sizes, count, values) { [meta, most, numbers] = [sizes, count, values]; },
    constant(name) { return typeof cv[name] === "number" ? cv[name] : null; },
    version: /OpenCV (\S+)/.exec(cv.getBuildInformation())[1],
    /** How many arrays wait to be taken; -1: see `error`; below: room for -2 - n is wanted. */
    call(name, form, ...flat) { return run(name, cv, form, flat); },
    /** Copy what waits to these addresses, and free it. */
    take(...addresses) {
      const kept = waiting;
      waiting = [];
      kept.forEach((mat, i) => { output(mat, addresses[i]); mat.delete(); });
    },
    /** Markers of a predefined dictionary: their ids, then the corners of each. */
    detectMarkers(dictionary, refinement, ...flat) {
      const options = new cv.aruco_DetectorParameters();
      options.cornerRefinementMethod = refinement;
      const known = cv.getPredefinedDictionary(dictionary);
      const rules = new cv.aruco_RefineParameters(10, 3, true);
      const detector = new cv.aruco_ArucoDetector(known, options, rules);
      const detect = { detectMarkers: (image, ids, corners) =>
        detector.detectMarkers(image, corners, ids) };
      try {
        return run("detectMarkers", detect, "moV", flat);
      } finally {
        [detector, rules, known, options].forEach((one) => one.delete());
      }
    },
  };
  return bridge;
}
