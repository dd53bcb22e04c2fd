"""What the tests of the page ask of what it keeps and saves, in the browser's private file system
(OPFS) and as files.
"""

from __future__ import annotations

import base64
import json

from edge_app.qa.chromium import Chromium

ALL = """(async () => {
  const found = {};
  const within = async (folder) => {
    for await (const [name, one] of folder.entries()) {
      if (one.kind === "directory") { await within(one); continue; }
      const file = await one.getFile();
      found[name] = await new Promise((done) => Object.assign(new FileReader(),
        { onload: (event) => done(event.target.result) }).readAsDataURL(file));
    }
  };
  await within(await navigator.storage.getDirectory());
  return found;
})()"""
DAMAGE = """(async () => {
  for await (const one of (await keptFolder()).values()) {
    const { size } = await one.getFile();
    const to = await one.createWritable({ keepExistingData: true });
    await to.write({ type: "write", position: Math.floor(size * 3 / 4), data: new Uint8Array(64) });
    await to.close();
  }
})()"""


def files(browser: Chromium) -> dict[str, bytes]:
    """Every file that is there, whatever wrote it."""
    found = browser.run(ALL)
    return {name: base64.b64decode(data.partition(",")[2]) for name, data in found.items()}


def entries(browser: Chromium) -> int:
    """How many files and folders lie at its root."""
    count = "let n = 0; for await (const _ of root.keys()) n += 1; return n"
    return browser.run(f"navigator.storage.getDirectory().then(async (root) => {{{count}}})")


def keep(browser: Chromium, name: str, first: str, second: str) -> str:
    """Keep the result at hand; what the page says against it, empty where it is kept."""
    typed = zip(("keep-name", "keep-key", "keep-again"), (name, first, second), strict=True)
    for field, text in typed:
        browser.run(f"$('{field}').value = {json.dumps(text)}")
    fault = "$('keep-fault').hidden ? '' : $('keep-fault').textContent"
    return browser.run(f"keepThis(new Event('submit')).then(() => {fault})")


def opened(browser: Chromium, passphrase: str) -> str:
    """Open the one kept case; what the page says against it, empty where it is open."""
    browser.run(f"$('kept-list').querySelector('input').value = {json.dumps(passphrase)}")
    browser.run("$('kept-list').querySelector('form').requestSubmit()")
    line = "$('kept-list').querySelector('.bad')"
    browser.wait(f"state.screen === 'result' || !{line}.hidden")
    return browser.run(f"{line}.hidden ? '' : {line}.textContent")


def damage(browser: Chromium) -> None:
    """Overwrite a part of what is kept, which is within the last picture."""
    browser.run(DAMAGE)


def file_of(browser: Chromium, script: str) -> bytes:
    """The bytes of the file that a JavaScript promise gives."""
    read = "Object.assign(new FileReader(), {onload: (event) => done(event.target.result)})"
    data = browser.run(
        f"{script}.then((file) => new Promise((done) => {read}.readAsDataURL(file)))"
    )
    return base64.b64decode(data.partition(",")[2])


def fault_of_referral(browser: Chromium, answer: str) -> str:
    """What the page says is missing after an answer; empty where it shows what leaves."""
    browser.run(f"{answer}; $('refer-fault').hidden = true; $('refer-form').requestSubmit()")
    browser.wait("!$('refer-fault').hidden || !$('refer-shown').hidden")
    return browser.run("$('refer-fault').hidden ? '' : $('refer-fault').textContent")
