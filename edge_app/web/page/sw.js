"use strict";
/* Keeps the whole page on the device, one version at a time. A new version is used only when every
file of it is here and has its checksum; until then, and while a page is open, the old one stays. */
importScripts("unpack.js");
const BUILD = "@BUILD@";
const FILES = @FILES@;  // path: [checksum, type, bytes, bytes as they are sent]
const POLICY = "@WORKER_POLICY@", PAGE_POLICY = "@POLICY@";
const SCOPE = new URL(self.registration.scope).pathname;
const PREFIX = `dermedge ${SCOPE} `;
const CACHE = PREFIX + BUILD;

const hex = (buffer) => Array.from(new Uint8Array(buffer),
  (byte) => byte.toString(16).padStart(2, "0")).join("");

const checksumOf = async (content) => hex(await crypto.subtle.digest("SHA-256", content));

async function fetched(path, checksum, size) {
  // Not what the browser kept of an attempt before: that may be the file that failed it.
  const answer = await fetch(`files/${checksum.slice(0, 32)}.br`, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  let content = await answer.arrayBuffer();
  // A host may have told the browser to unpack it already.
  if (content.byteLength !== size || await checksumOf(content) !== checksum) {
    content = unpackBrotli(new Uint8Array(content), size);
    if (await checksumOf(content) !== checksum) throw new Error(`${path}: checksum`);
  }
  return content;
}

async function known(path, checksum) {
  for (const name of await caches.keys()) {
    if (!name.startsWith(PREFIX)) continue;
    const answer = await (await caches.open(name)).match(SCOPE + path);
    if (answer && answer.headers.get("x-sha256") === checksum) return answer.arrayBuffer();
  }
  return null;
}

async function tell(message) {
  const pages = await self.clients.matchAll({ includeUncontrolled: true, type: "window" });
  pages.forEach((page) => page.postMessage(message));
}

function answer(path, content) {
  const [checksum, type, size] = FILES[path];
  return new Response(content, { headers: {
    "content-type": type, "content-length": String(size), "x-sha256": checksum,
    "content-security-policy": path === "worker.js" ? POLICY : PAGE_POLICY,
    "x-content-type-options": "nosniff",
  } });
}

async function install() {
  const cache = await caches.open(CACHE);
  const whole = Object.values(FILES).reduce((sum, file) => sum + file[3], 0);
  let done = 0;
  try {
    for (const [path, [checksum, , size, sent]] of Object.entries(FILES)) {
      const content = await known(path, checksum) || await fetched(path, checksum, size);
      await cache.put(SCOPE + path, answer(path, content));
      done += sent;
      await tell({ done, whole });
    }
  } catch (error) {
    await tell({ failed: String(error.message || error), full: error.name === "QuotaExceededError" });
    throw error;
  }
}

async function activate() {
  // A still newer version that is just fetched keeps what it has: it clears up when its turn comes.
  const newer = self.registration.installing;
  for (const name of await caches.keys())
    if (!newer && name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
  await self.clients.claim();
}

async function respond(request) {
  const path = new URL(request.url).pathname.slice(SCOPE.length) || "index.html";
  const cache = await caches.open(CACHE);
  const found = await cache.match(SCOPE + path);
  if (found) return found;
  if (Object.hasOwn(FILES, path)) {  // what a browser lost is fetched again, and checked
    const [checksum, , size] = FILES[path];
    const content = await fetched(path, checksum, size).catch(() => null);
    if (content) {
      await cache.put(SCOPE + path, answer(path, content)).catch(() => {});
      return answer(path, content);
    }
  }
  return new Response("not part of this page", { status: 404 });
}

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("message", (event) => {
  if (event.data === "take over") self.skipWaiting();
  if (event.data === "claim") event.waitUntil(self.clients.claim());
});
// Nothing goes on to the network, whatever asks for it, but for a file of the page that was lost.
self.addEventListener("fetch", (event) => event.respondWith(
  new URL(event.request.url).origin === self.location.origin && event.request.method === "GET"
    ? respond(event.request) : Response.error()));
