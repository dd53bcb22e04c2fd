"use strict";
/* Brotli's decoder (npm, MIT and Apache-2.0), as one script. */
const unpackBrotli = (() => {
  const modules = {
@MODULES@
  };
  modules["base64-js"] = (exports) => {
    exports.toByteArray = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  };
  const loaded = {};
  function require(name) {
    const key = name.replace(/^\.\//, "").replace(/\.js$/, "");
    if (!loaded[key]) {
      loaded[key] = { exports: {} };
      modules[key](loaded[key].exports, loaded[key], require);
    }
    return loaded[key].exports;
  }
  return require("decode").BrotliDecompressBuffer;  // of bytes, and how many they become
})();
