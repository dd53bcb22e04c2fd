"use strict";
/* Opens what `seal.js` sealed, with the same keys: nothing is shown of a file that is not whole. */
const MOST = 2 ** 26;  // bytes that a file's scrypt may take: twice ours

async function unsealed(key, data, additionalData) {
  try {
    return new Uint8Array(await crypto.subtle.decrypt(
      { name: "AES-GCM", iv: data.slice(0, 12), additionalData }, key, data.slice(12)));
  } catch {
    return null;
  }
}

const bytesOf = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
const json = (content) => JSON.parse(new TextDecoder().decode(content));

async function unwrapped(header, passphrase, purpose) {
  const text = header.slice(32);
  if (hexed(await sha256(text)) !== hexed(header.slice(0, 32))) throw fault("damaged");
  const { kdf, cost, salt, key } = json(text);
  if (kdf !== "scrypt" || 128 * cost.n * cost.r > MOST || cost.p > 16) throw fault("other");
  const stretched = await crypto.subtle.importKey("raw",
    await scrypt(passphrase, bytesOf(salt), cost), "AES-GCM", false, ["decrypt"]);
  const secret = await unsealed(stretched, bytesOf(key), utf8(purpose));
  if (!secret) throw fault("wrong");
  return secret;
}

class Unsealer {
  constructor(file, sealer) {
    [this.file, this.sealer] = [file, sealer];
  }

  rows(query, values = []) {
    const found = this.file.exec(query, values);
    return found.length ? found[0].values : [];
  }

  async open(data, ...where) {
    const found = await unsealed(this.sealer.key, data, place(...where));
    if (!found) throw fault("damaged");
    return found;
  }

  /** The records of a table, each as the audit trail says that it was added. */
  async records(table, above) {
    const rows = this.rows(`SELECT id, ${above || "''"}, record FROM ${table}`);
    return Promise.all(rows.map(async ([id, parent, row]) => {
      const digest = hexed(await sha256(row)), which = `add ${table} ${id}`;
      if (this.added.get(which) !== digest) throw fault("damaged");
      this.added.delete(which);
      const record = await this.open(row, table, id, ...(above ? [parent] : []));
      return [id, parent, json(record)];
    }));
  }

  /** Whether the audit trail is whole; fills `added`. */
  async check() {
    let mac = new Uint8Array(), number = 0;
    this.added = new Map();
    for (const [given, entry, stated] of this.rows("SELECT * FROM audit ORDER BY number")) {
      mac = await this.sealer.chain(mac, number += 1, entry);
      if (given !== number || hexed(mac) !== hexed(stated)) throw fault("damaged");
      const [, what, which, digest] = json(await this.open(entry, "audit", String(number)));
      if (digest) this.added.set(`${what} ${which}`, digest);
    }
    const [[value] = []] = this.rows("SELECT value FROM store WHERE name = 'head'");
    const head = value ? json(await this.open(value, "head")) : {};
    if (head.number !== number || head.mac !== hexed(mac)) throw fault("damaged");
  }

  async picture(id) {
    const [[data] = []] = this.rows("SELECT data FROM picture WHERE capture = ?", [id]);
    if (!data) throw fault("damaged");
    return this.open(data, "picture", id);
  }
}

/** What `use({person, captures}, pictureOf)` makes of a file; captures as [id, lesion, record]. */
async function openedCase(content, passphrase, form, use) {
  if (typeof initSqlJs === "undefined") importScripts(url("sql-wasm.js"));
  const SQL = await initSqlJs({ locateFile: url });
  let file;
  try {
    file = new SQL.Database(content);
    const value = (query) => file.exec(query)[0].values[0][0];
    if (value("PRAGMA quick_check(1)") !== "ok") throw fault("damaged");
    if (value("PRAGMA application_id") !== form.application
      || value("PRAGMA user_version") !== form.version) throw fault("other");
    const header = value("SELECT value FROM store WHERE name = 'header'");
    const secret = await unwrapped(header, passphrase, form.purpose);
    const opened = new Unsealer(file, await Sealer.of(secret));
    secret.fill(0);
    await opened.check();
    const [[, , person]] = await opened.records("person", "");
    await opened.records("lesion", "person");
    const captures = await opened.records("capture", "lesion");
    if (opened.added.size) throw fault("damaged");
    return await use({ person, captures }, (id) => opened.picture(id));
  } catch (error) {
    // What SQLite or JSON says of a file that is none.
    throw error.named || error instanceof Said ? error : Object.assign(error, { named: "damaged" });
  } finally {
    if (file) file.close();
    initSqlJsPromise = undefined;  // as in `sealedCase`
  }
}
