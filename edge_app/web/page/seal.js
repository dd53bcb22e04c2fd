"use strict";
/* A case as the app's own sealed file (`edge_app.store`): its key by scrypt (RFC 7914), as
browsers have no Argon2id; its records by AES-256-GCM. Python says what is in the rows. */
const COST = { n: 2 ** 15, r: 8, p: 4 };  // as much work as n = 2^17, p = 1, in 32 MB
const utf8 = (text) => new TextEncoder().encode(text);
const random = (count) => crypto.getRandomValues(new Uint8Array(count));

function joined(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => { whole.set(part, at); return at + part.length; }, 0);
  return whole;
}

async function bits(name, secret, values, count) {
  const key = await crypto.subtle.importKey("raw", secret, name, false, ["deriveBits"]);
  return new Uint8Array(await crypto.subtle.deriveBits(
    { name, hash: "SHA-256", ...values }, key, 8 * count));
}

/** Salsa20/8 of 16 words, in place. */
function salsa(block, x) {
  x.set(block);
  const turn = (to, a, b, by) => {
    const sum = (x[a] + x[b]) | 0;
    x[to] ^= (sum << by) | (sum >>> (32 - by));
  };
  for (let round = 0; round < 4; round++) {
    for (const [a, b, c, d] of SALSA) {
      turn(b, a, d, 7);
      turn(c, b, a, 9);
      turn(d, c, b, 13);
      turn(a, d, c, 18);
    }
  }
  for (let i = 0; i < 16; i++) block[i] = (block[i] + x[i]) | 0;
}
const SALSA = [[0, 4, 8, 12], [5, 9, 13, 1], [10, 14, 2, 6], [15, 3, 7, 11],
  [0, 1, 2, 3], [5, 6, 7, 4], [10, 11, 8, 9], [15, 12, 13, 14]];

function mixed(words, table, { n, r }) {
  const size = 32 * r, block = new Int32Array(16), scratch = new Int32Array(16);
  const next = new Int32Array(size);
  const step = () => {
    block.set(words.subarray(size - 16));
    for (let i = 0; i < 2 * r; i++) {
      for (let j = 0; j < 16; j++) block[j] ^= words[16 * i + j];
      salsa(block, scratch);
      next.set(block, 16 * (i % 2 ? r + (i - 1) / 2 : i / 2));
    }
    words.set(next);
  };
  for (let i = 0; i < n; i++) {
    table.set(words, size * i);
    step();
  }
  for (let i = 0; i < n; i++) {
    const from = size * (words[size - 16] & (n - 1));
    for (let j = 0; j < size; j++) words[j] ^= table[from + j];
    step();
  }
}

async function scrypt(passphrase, salt, cost) {
  const size = 128 * cost.r;
  const typed = utf8(passphrase.normalize("NFC"));
  const blocks = await bits("PBKDF2", typed, { salt, iterations: 1 }, size * cost.p);
  const table = new Int32Array(32 * cost.r * cost.n);
  for (let i = 0; i < cost.p; i++)  // browsers run on little-endian processors
    mixed(new Int32Array(blocks.buffer, size * i, 32 * cost.r), table, cost);
  return bits("PBKDF2", typed, { salt: blocks, iterations: 1 }, 32);
}

/** Where a row belongs, which it is bound to. */
const place = (...where) => utf8(["dermedge store", "1", ...where].join("\0"));

class Sealer {
  static async of(secret) {
    const derived = (purpose) => bits("HKDF", secret,
      { salt: new Uint8Array(), info: utf8(`dermedge store ${purpose}`) }, 32);
    const made = new Sealer();
    made.key = await crypto.subtle.importKey("raw", await derived("records"), "AES-GCM", false,
      ["encrypt", "decrypt"]);
    made.mac = await crypto.subtle.importKey("raw", await derived("audit"),
      { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    made.origin = hexed((await derived("origin")).slice(0, 8));
    return made;
  }

  async seal(data, ...where) {
    return sealed(this.key, data, place(...where));
  }

  async chain(last, number, entry) {
    const at = new Uint8Array(8);
    new DataView(at.buffer).setUint32(4, number);
    return new Uint8Array(await crypto.subtle.sign("HMAC", this.mac, joined(last, at, entry)));
  }
}

async function sealed(key, data, additionalData) {
  const iv = random(12);
  const body = await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData }, key, data);
  return joined(iv, new Uint8Array(body));
}

async function header(secret, passphrase, { purpose }) {
  const salt = random(16);
  const stretched = await crypto.subtle.importKey(
    "raw", await scrypt(passphrase, salt, COST), "AES-GCM", false, ["encrypt"]);
  const key = hexed(await sealed(stretched, secret, utf8(purpose)));
  const text = utf8(JSON.stringify({ kdf: "scrypt", cost: COST, salt: hexed(salt), key }));
  return joined(await sha256(text), text);
}

/** The file's bytes. `rowsOf(origin)` gives what Python's `case.rows` does; `pictures` as PNG. */
async function sealedCase(rowsOf, pictures, passphrase) {
  if (typeof initSqlJs === "undefined") importScripts(url("sql-wasm.js"));
  const SQL = await initSqlJs({ locateFile: url });
  const secret = random(32), sealer = await Sealer.of(secret);
  const { form, rows, now } = rowsOf(sealer.origin);
  const file = new SQL.Database();
  const insert = (table, ...values) =>
    file.run(`INSERT INTO ${table} VALUES (${values.map(() => "?").join()})`, values);
  let number = 0, mac = new Uint8Array();
  const log = async (what, which = "", digest = "") => {
    const entry = await sealer.seal(
      utf8(JSON.stringify([now, what, which, digest, 0])), "audit", String(number += 1));
    mac = await sealer.chain(mac, number, entry);
    insert("audit", number, entry, mac);
  };
  try {
    for (const statement of form.statements) file.run(statement);
    file.run(`PRAGMA application_id=${form.application}`);
    file.run(`PRAGMA user_version=${form.version}`);
    insert("store", "header", await header(secret, passphrase, form));
    await log("create");
    for (const { table, ids, record, summary } of rows) {
      const row = await sealer.seal(utf8(record), table, ...ids);
      insert(table, ...ids, row);
      if (table === "capture")
        insert("picture", ids[0], await sealer.seal(await pictures.shift()(), "picture", ids[0]));
      if (summary) insert("summary", ids[0], await sealer.seal(utf8(summary), "summary", ids[0]));
      await log(`add ${table}`, ids[0], hexed(await sha256(row)));
    }
    const head = { number, mac: hexed(mac), seen: now, wrong: "", begun: [] };
    insert("store", "head", await sealer.seal(utf8(JSON.stringify(head)), "head"));
    return new Blob([file.export()], { type: "application/octet-stream" });
  } finally {
    secret.fill(0);
    file.close();
    initSqlJsPromise = undefined;  // its memory grew by the pictures, and never shrinks
  }
}
