"use strict";
/* Sealed files that stay on this device, in the browser's private file system (OPFS). A file is
written by a synchronous handle, which is all that Safari had for years, under another name; it
gets its own by `move` with folder and name, the one form that WebKit, Chromium and Firefox share. */
const PIECE = 2 ** 22;  // bytes at a time

/** What the page tells by its own words: full, wrong (a passphrase), damaged, or other (a form). */
const fault = (named) => Object.assign(new Error(named), { named });

async function folderOf(folder, create) {
  return (await navigator.storage.getDirectory()).getDirectoryHandle(folder, { create });
}

/** Keep a blob under a name: whole, or not at all. */
async function keepFile(folder, name, content) {
  const within = await folderOf(folder, true), part = `${name}.part`;
  try {
    const made = await within.getFileHandle(part, { create: true });
    const handle = await made.createSyncAccessHandle();
    try {  // early Safari answers each by a promise
      for (let at = 0; at < content.size; at += PIECE) {
        const piece = new Uint8Array(await content.slice(at, at + PIECE).arrayBuffer());
        if (await handle.write(piece, { at }) !== piece.length) throw fault("full");
      }
      await handle.flush();
      if (await handle.getSize() !== content.size) throw fault("full");
    } finally {
      await handle.close();
    }
    await made.move(within, name);
  } catch (error) {
    await within.removeEntry(part).catch(() => {});
    throw error.name === "QuotaExceededError" ? fault("full") : error;
  }
}

/** The case at hand as a sealed file under `file` in `folder`; the rest as `seal` takes it. */
async function keepCase({ folder, file, ...wanted }) {
  await keepFile(folder, file, await seal(wanted));
}

/** A kept case, as `analyse` gives a result, with all its pictures. */
async function openCase({ folder, file, passphrase }) {
  const handle = await (await folderOf(folder, false)).getFileHandle(file);
  const content = new Uint8Array(await (await handle.getFile()).arrayBuffer());
  return openedCase(content, passphrase, JSON.parse(page.form()), async (kept, pictureOf) => {
    const shown = new Map();
    for (const [id] of kept.captures) {
      const png = new Blob([await pictureOf(id)], { type: "image/png" });
      const bitmap = await createImageBitmap(png);
      shown.set(id, await preview(bitmap).finally(() => bitmap.close()));
    }
    // Only now: the spot at hand gives way to a case that is whole.
    const found = JSON.parse(page.restore(JSON.stringify(kept)));
    if (found.error) throw new Said(found.error);
    return { ...found, shown: found.order.map((id) => shown.get(id)) };
  });
}
