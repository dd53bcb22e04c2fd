"""The page in Chromium: it says what the desktop says, needs no network, updates as a whole."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import io
import json
import os
import random
import re
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import pytest

pytest.importorskip("babel", reason="the words need it")

from dermedge import DISCLAIMER, UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import open_bundle
from dermedge.cli import main
from dermedge.data.synthetic import draw
from dermedge.image.colour import DISPLAY_P3, matrix_profile
from dermedge.image.header.jpeg import read_jpeg
from dermedge.image.jpeg import decode_jpeg
from dermedge.image.read import read_image, write_png
from edge_app.i18n import language
from edge_app.presentation import estimate
from edge_app.presentation.body_map import region
from edge_app.qa.chromium import Chromium, program
from edge_app.qa.web import SETTLED, STARTED, Visit, compare, write_film
from edge_app.referral import codes, consent
from edge_app.referral.fhir_check import faults
from edge_app.store.records import StoreError
from edge_app.store.store import Store, WrongKey
from edge_app.ui import theme
from edge_app.web import apk, case
from edge_app.web.build import PAGE, SCRIPTS, _about, build, page
from edge_app.web.packages import PYODIDE, PackageError, fetch, numpy_wheel
from edge_app.web.site import packed, unpacker, write_site
from tests import kept, web

READY = "typeof loading !== 'undefined' && loading.stage === 'ready'"


def _needs_chromium() -> None:
    if program() is None:
        pytest.skip("Chromium is not installed (Debian package chromium)")
    web.node()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The page around the bundle that comes with dermedge."""
    _needs_chromium()
    pytest.importorskip("pydicom", reason="codes are read from its tables")
    folder = tmp_path_factory.mktemp("site")
    report = build(open_bundle(), folder, web.archives(), web.numpy_wheel(), quality=1)
    assert (folder / "index.html").is_file()
    sent = sum(path.stat().st_size for path in (folder / "files").iterdir())
    assert report.bytes == sent + (folder / "unpack.js").stat().st_size
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for seed, style, size, suffix in (
        (1, "dermoscopy", (384, 512), ".png"),
        (2, "phone", (480, 640), ".jpg"),
        (3, "phone", (720, 540), ".jpg"),
        (5, "dermoscopy", (301, 403), ".jpg"),
    ):
        path = folder / f"{seed}{suffix}"
        pixels = draw(seed, style, size).image
        if suffix == ".png":
            write_png(path, pixels)
        else:
            cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def visit(site, pictures, tmp_path_factory):
    """The page, open and ready; some tests stop its server, which it must not notice."""
    film = tmp_path_factory.mktemp("film") / "camera.y4m"
    write_film(film, read_image(pictures[1]).pixels)
    with Visit(site, camera=film) as visit:
        visit.start()
        yield visit


@pytest.fixture(scope="module")
def analyzer():
    return Analyzer(open_bundle(), threads=1)


def test_says_what_the_desktop_says(visit, analyzer, pictures):
    found = compare(visit, analyzer, pictures)
    assert found["compared"] == found["same_advice"] == len(pictures)
    assert found["network_inputs_not_equal"] == []
    assert found["greatest_difference_of_a_probability"]["inputs equal"] <= 1e-5


def test_large_pictures_are_halved_as_on_the_desktop(visit, analyzer, tmp_path):
    from PIL import Image

    turned = Image.Exif()
    turned[0x112] = 6
    picture = Image.fromarray(cv2.resize(draw(2, "phone", (480, 640)).image, (2301, 1727)))
    picture.save(tmp_path / "1.jpg", quality=92)
    picture.save(tmp_path / "2.jpg", quality=80, subsampling=1, progressive=True, exif=turned)
    picture.resize((4099, 2050)).save(tmp_path / "3.jpg", quality=90)
    picture.save(tmp_path / "4.png", compress_level=1)
    found = compare(visit, analyzer, sorted(tmp_path.iterdir()))
    assert found["refused_in_the_browser"] == found["network_inputs_not_equal"] == []
    assert found["same_advice"] == 4


def test_a_browser_that_gives_neither_frames_nor_a_decoder(site, analyzer, pictures, tmp_path):
    film, large, other = tmp_path / "camera.y4m", tmp_path / "large.jpg", tmp_path / "site"
    write_film(film, read_image(pictures[1]).pixels)
    cv2.imwrite(str(large), cv2.resize(draw(2, "phone", (480, 640)).image, (2301, 1727)))
    content = {name: value for name, (value, _kind) in apk.read_site(site).files.items()}
    for name in ("app.js", "worker.js"):
        content[name] = b"self.ImageDecoder = self.VideoFrame = undefined;\n" + content[name]
    vendor = web.archives()
    write_site(other, content, packed(vendor / "packed", content, 1), unpacker(vendor))
    with Visit(other, camera=film) as visit:
        visit.start()
        found = compare(visit, analyzer, [pictures[1], large])
        assert found["network_inputs_not_equal"] == [large.name]
        assert found["same_advice"] == 2
        visit.browser.run("show('check'); openLive()")
        visit.browser.wait("state.live && state.live.looks > 1")
        assert visit.browser.run("$('live').querySelectorAll('path').length") == 2


def test_what_tells_whether_a_browser_halves_is_what_the_desktop_makes_of_it():
    script = (PAGE / "worker.js").read_text(encoding="utf-8")
    probe = "".join(re.findall(r'"([^"]+)"', re.search(r"const PROBE = ([^;]*);", script)[1]))
    halved = re.search(r'const HALVED = "(\w+)"', script)[1]
    jpeg = read_jpeg(base64.b64decode(probe))
    pixels = decode_jpeg(jpeg, 2, gray=False)
    rgba = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    assert hashlib.sha256(rgba.tobytes()).hexdigest() == halved
    # Nothing else makes the same of it.
    whole = cv2.resize(decode_jpeg(jpeg, 1, gray=False), (8, 8), interpolation=cv2.INTER_AREA)
    assert np.abs(whole.astype(int) - pixels).max() > 20


def test_display_p3_gets_the_same_advice(visit, analyzer, pictures, tmp_path):
    from PIL import Image

    path = tmp_path / "p3.jpg"
    profile = matrix_profile(DISPLAY_P3)
    Image.fromarray(read_image(pictures[1]).pixels).save(path, quality=95, icc_profile=profile)
    found, expected = visit.analyse(path)["analysis"], analyzer.analyze(path)
    assert found["triage"] == expected.triage
    assert found["malignancy"] == pytest.approx(expected.malignancy, abs=5e-3)
    plain = np.asarray(Image.open(path)).astype(int)
    assert np.abs(read_image(path).pixels - plain).mean() > 3, "the profile matters here"


def test_same_words_as_the_app(visit, pictures):
    browser = visit.browser
    browser.run("$('agree').click(); $('start').click()")
    browser.choose("#gallery", pictures[1])
    browser.wait("state.screen === 'result'")
    analysis = json.loads(browser.run("JSON.stringify(state.analysis)"))
    before = language.current()
    try:
        for name in language.LANGUAGES:
            browser.run(f"choose('{name}')")
            language.use(name)
            view = estimate.result(analysis)
            browser.wait(f"$('band-title').textContent === {json.dumps(view.band.title)}", 10)
            said = json.loads(browser.run("JSON.stringify(state.said)"))
            for key in ("estimate", "remarks", "measures", "classes", "limits", "versions"):
                assert _plain(said[key]) == _plain(getattr(view, key)), (name, key)
            assert said["disclaimer"] == language._(DISCLAIMER)
            assert browser.run("$('disclaimer').textContent") == language._(DISCLAIMER)
            assert browser.run("$('demonstration').textContent") == language._(estimate.DEMO)
            assert browser.run("getComputedStyle($('disclaimer')).display") != "none"
            assert browser.run("document.documentElement.dir") == ("rtl" if name == "ar" else "ltr")
            card = browser.run("fetch($('card-link').href).then((found) => found.text())")
            assert (card[:5], f"/Lang ({name})" in card) == ("%PDF-", True)  # it was in English
            # Whatever the page itself says is translated, too.
            texts = browser.run("[...document.querySelectorAll('[data-t]')].map((x) =>"
                                " [x.dataset.t, x.textContent])")  # fmt: skip
            assert [said for english, said in texts if said != language._(english)] == []
            assert _nameless(browser) == []
            browser.run("show('welcome')")
            assert _nameless(browser) == []
            browser.run("show('result')")
    finally:
        language.use(before)
        browser.run("choose('en'); newSpot()")


def _nameless(browser: Chromium) -> list[str]:
    """Roles of what a screen reader stops at and has no name for."""
    stops = ("image", "button", "radio", "radiogroup", "checkbox", "combobox", "textbox", "link")
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in nodes
             if not node["ignored"] and not node["name"]["value"]]  # fmt: skip
    return [role for role in roles if role in stops]


def _plain(words) -> str:
    """Without the blanks and marks of direction that Babel and a browser choose each."""
    text = json.dumps(words, ensure_ascii=False)
    return re.sub("[\u00a0\u202f\u200e\u200f\u061c]", "", text).replace(" ", "").replace("٪", "%")


def test_every_screen_fits_a_phone_and_can_be_pressed(visit, pictures):
    browser = visit.browser
    try:
        for size in ((195, 422), (360, 640), (1024, 768)):  # the first: 390x844 at 200 %
            browser.resize(*size)
            for name in ("ar", "de", "es"):
                browser.run(f"choose('{name}')")
                for screen in ("welcome", "check", "result", "kept", "referral", "about"):
                    browser.run(f"show('{screen}')")
                    wide = "document.documentElement.scrollWidth, $('main').scrollWidth"
                    assert browser.run(f"Math.max({wide})") <= size[0], (screen, name)
                    small = browser.run(
                        "[...document.querySelectorAll('button, .press, select, .tick')]"
                        ".filter((x) => x.offsetParent && x.getBoundingClientRect().height < 44)"
                        ".map((x) => x.outerHTML)"
                    )
                    assert small == [], screen
        browser.resize(195, 422)  # 390x844 at 200 %
        foot = "document.querySelector('#result .foot')"
        stays = f"getComputedStyle({foot}).position === 'sticky' ? {foot}.offsetHeight : 0"
        browser.run("show('result')")
        assert browser.run(f"$('main').clientHeight - ({stays})") >= 120
        browser.resize(160, 284)  # 320x568 at 200 %: head and foot alone are higher
        browser.run("scrollTo(0, 1e6)")
        assert browser.run("$('disclaimer').getBoundingClientRect().bottom <= innerHeight + 1")
        assert browser.run("$('main').clientHeight >= $('result').offsetHeight")
        browser.run("show('about')")
        assert browser.run("scrollY") == 0
    finally:
        browser.resize(390, 844)
        browser.run("choose('en'); newSpot()")


def test_colours_have_contrast():
    css = {}
    for look in theme.STYLES.values():
        for name in ("page", "card", "quiet", "page_quiet", "head", "footer", "button", "plain",
                     "demo", "guide_wait", "guide_good", "guide_bad", "off"):  # fmt: skip
            style = look[name]
            css[name] = theme.contrast(style.text, style.ground)
            assert css[name] >= (3 if name == "off" else 4.5), name


def _turned_webp() -> bytes:
    from PIL import Image

    exif, into = Image.Exif(), io.BytesIO()
    exif[0x112] = 6
    Image.fromarray(draw(2, "phone", (64, 96)).image).save(into, "WEBP", exif=exif)
    return into.getvalue()


def _hdr_png() -> bytes:
    png = cv2.imencode(".png", draw(2, "phone", (64, 96)).image)[1].tobytes()
    colours = b"cICP" + bytes([9, 16, 0, 1])  # BT.2100 PQ
    return png[:33] + struct.pack(">I", 4) + colours + struct.pack(">I", crc32(colours)) + png[33:]


def test_what_cannot_be_judged_is_refused_in_words(visit, pictures, tmp_path):
    whole = pictures[1].read_bytes()
    cases = {
        "cut.jpg": (whole[: len(whole) // 2], "cut short"),
        "text.jpg": (b"no picture at all, but text", "not a JPEG"),
        "tiny.png": (cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes(), "too small"),
        "raw.tif": (b"II*\0" + bytes(40), "not supported"),
        # Some browsers turn it, others do not.
        "turned.webp": (_turned_webp(), "as its file describes it"),
        "hdr.png": (_hdr_png(), "unusual kind"),
    }
    for name, (content, words) in cases.items():
        (tmp_path / name).write_bytes(content)
        answer = visit.analyse(tmp_path / name)
        assert words in answer["error"]["said"], answer
    visit.browser.run("newSpot()")
    visit.browser.choose("#gallery", tmp_path / "cut.jpg")
    visit.browser.wait("!$('error').hidden && !state.busy")
    assert "cut short" in visit.browser.run("$('error').textContent")


def _outline_off_picture(browser) -> float:
    """Px by which a corner of what the outline is drawn in lies beside the picture's."""
    return browser.run(
        "(() => { const m = $('outline').getScreenCTM(), [w, h] = state.analysis.size,"
        " p = $('picture').getBoundingClientRect(); return Math.max(...[m.e - p.left,"
        " m.f - p.top, m.a * w + m.e - p.right, m.d * h + m.f - p.bottom].map(Math.abs)); })()"
    )


def test_several_pictures_of_one_spot_are_put_together(visit, pictures, tmp_path):
    browser = visit.browser
    browser.run("newSpot()")
    for path in pictures[1:3]:
        browser.choose("#gallery", path)
        browser.wait("!state.busy && state.screen === 'result'")
        assert _outline_off_picture(browser) < 1
        browser.run("$('another').click()")
    # One that is refused leaves the others, and its fault is not shown for the next.
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(pictures[1].read_bytes()[:4000])
    browser.choose("#gallery", damaged)
    browser.wait("!state.busy && !$('error').hidden")
    browser.run("$('back').click(); $('another').click()")
    assert browser.run("$('error').hidden")
    said = json.loads(browser.run("JSON.stringify(state.said)"))
    assert said["pictures"] == 2
    assert said["several"]
    assert browser.run("$('picture').naturalWidth") > 0
    alt = "$('picture').alt"
    assert browser.run(alt) == "The photo, with the outline that was found"
    assert browser.run(f"state.said.outline = []; say(); {alt}").endswith("no outline was found")
    browser.run("newSpot()")
    browser.choose("#gallery", pictures[1])
    browser.wait("state.screen === 'result'")
    assert json.loads(browser.run("JSON.stringify(state.said)"))["pictures"] == 1
    browser.run("newSpot()")


# What a finger reaches now, by its words.
REACHED = """[...document.querySelectorAll("button, label, select")].filter((one) => {
  one.scrollIntoView({ block: "center" });
  const box = one.getBoundingClientRect();
  const hit = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return one.offsetParent && one.contains(hit);
}).map((one) => one.id || one.textContent.trim())"""


def test_nothing_else_is_pressed_while_a_photo_is_judged_or_a_case_opened(visit, pictures):
    browser = visit.browser
    browser.run("newSpot()")
    browser.choose("#gallery", pictures[1])
    browser.wait("state.screen === 'result'")
    # Nor does an update take photos that nobody has saved, unless the person says so.
    browser.run("$('update').hidden = false; $('take-over').click(); 1")
    browser.wait("$('question').open")
    browser.run("$('question-no').click(); $('another').click()")
    assert {"back", "live-switch", "Choose a photo", "take-over"} <= set(browser.run(REACHED))
    browser.run(
        "self.own = ask; ask = (task, values) => new Promise((done) => {"
        " self.goOn = () => done(own(task, values)); }); 1"
    )
    browser.choose("#gallery", pictures[2])
    browser.wait("Boolean(self.goOn)")
    assert browser.run(REACHED) == []
    browser.run("ask = own; goOn()")
    browser.wait("state.screen === 'result' && state.said.pictures === 2")
    assert "new" in browser.run(REACHED)
    # A case that is being saved or kept: whoever goes on would not hear that it failed.
    browser.run("ask = () => new Promise((_, fail) => { self.goOn = fail; }); 1")
    for deed, fault in (("keepThis(new Event('submit'))", "keep"), ("save()", "save")):
        browser.run(f"{deed}; 1")
        assert browser.run(REACHED) == []
        browser.run("goOn({ said: 'It did not succeed.' })")
        assert browser.run(f"$('{fault}-fault').textContent") == "It did not succeed."
        assert "new" in browser.run(REACHED)
    browser.run("state.saved = state.pictures; show('kept')")
    browser.run("openKept('', '').catch(() => {}); 1")
    assert browser.run(REACHED) == []
    browser.run("ask = own; goOn({ said: 'It did not succeed.' })")
    assert "back" in browser.run(REACHED)
    browser.run("$('update').hidden = true; newSpot()")


def test_a_sealed_file_is_taken_in_by_the_app(visit, pictures, tmp_path):
    browser = visit.browser
    browser.run("newSpot()")
    analyses = []
    stick = tmp_path / "stick.jpg"
    for path in pictures[1:3]:
        shutil.copy(path, stick)
        browser.choose("#gallery", stick)
        browser.wait("state.screen === 'result'")
        stick.unlink()  # it is pulled before anything is saved
        analyses.append(json.loads(browser.run("JSON.stringify(state.analysis)")))
        browser.run("$('another').click()")
    browser.run("show('result')")
    weak, good = "password1234", "grün Tisch 7 Wolke"
    for name, first, second, fault in (
        ("Mira", good, weak, "The two are not the same."),
        ("", good, good, "needs a name"),
        ("Mira", weak, weak, "among the first that are tried"),
    ):
        typed = f"$('save-name').value = '{name}'; $('save-key').value = '{first}'; "
        typed += f" $('save-again').value = '{second}'; "  # and Enter, as where a case is kept
        browser.run(f"{typed} $('save-form').requestSubmit(); 1")
        browser.wait("!state.busy && !$('save-fault').hidden")
        assert fault in browser.run("$('save-fault').textContent")
    typed = (
        f"$('save-name').value = 'Mira'; $('save-key').value = $('save-again').value = '{good}';"
    )
    browser.run(typed)
    content = kept.file_of(browser, "save()")
    browser.run("newSpot()")
    path = tmp_path / "cases.dermcases"
    path.write_bytes(content)
    assert b"Mira" not in path.read_bytes()
    (tmp_path / "store").mkdir()
    with contextlib.closing(Store.create(tmp_path / "store" / "cases", "another one 42")) as store:
        with pytest.raises(WrongKey):
            store.merge(path, "another one 42")
        assert store.merge(path, good) == 2
        assert store.merge(path, good) == 0
        (person,) = store.people()
        (lesion,) = store.lesions(person.id)
        captures = store.captures(lesion.id)
        assert (person.name, lesion.title, region(lesion.view, lesion.x, lesion.y)) == (
            "Mira", "Spot", None
        )  # fmt: skip
        assert [capture.analysis for capture in captures] == analyses
        # Neither says when it was taken: nothing may say that it is of today.
        assert [capture.dating for capture in captures] == ["unknown"] * 2
        for capture, source in zip(captures, pictures[1:3], strict=True):
            stored = read_image(store.picture(capture.id)).pixels
            assert np.array_equal(stored, read_image(source).pixels)
    with contextlib.closing(Store.open(path, good)) as store:
        store.check()


def test_a_case_stays_on_the_device_only_when_asked_and_sealed(visit, pictures, tmp_path):
    browser, key = visit.browser, "grün Tisch 7 Wolke"
    assert kept.files(browser) == {}
    assert kept.entries(browser) == 0
    browser.run("newSpot()")
    for path in pictures[1:3]:
        browser.choose("#gallery", path)
        browser.wait("state.screen === 'result'")
        browser.run("$('another').click()")
    browser.run("show('result')")
    said = browser.run("state.said")
    for name, first, second, fault in (
        ("Mira", key, "another", "The two are not the same."),
        ("Mira", "password1234", "password1234", "among the first that are tried"),
    ):
        assert fault in kept.keep(browser, name, first, second)
    # A device that is full: one line, and nothing of the file.
    origin = visit.address.rstrip("/")
    full = browser.run("navigator.storage.estimate().then((x) => x.usage)") + 200_000
    browser.send("Storage.overrideQuotaForOrigin", origin=origin, quotaSize=full)
    assert "not enough room" in kept.keep(browser, "Mira", key, key)
    assert kept.files(browser) == {}
    assert browser.run("$('kept-open').hidden")
    browser.send("Storage.overrideQuotaForOrigin", origin=origin)
    # Some browsers ask whether the page may keep it for good, and nobody answers.
    browser.run("navigator.storage.persist = () => new Promise(() => {}); 1")
    assert kept.keep(browser, "Mira", key, key) == ""
    assert browser.run("delete navigator.storage.persist")
    assert browser.run("namesTyped()") == ["Mira"]  # no referral may hold it either
    ((name, content),) = kept.files(browser).items()
    assert re.fullmatch(r"[\d-]{10}T[\d-]{8}Z [\da-f]{8}\.dermcases", name)
    for clear in (b"Mira", b"Spot", b"\x89PNG", b"IHDR", b"malignancy", b"polygons"):
        assert clear not in content, clear
    (tmp_path / name).write_bytes(content)
    with contextlib.closing(Store.open(tmp_path / name, key)) as store:
        store.check()

    browser.run("newSpot(); $('kept-again').click()")
    assert browser.run("namesTyped()") == []
    browser.wait("state.screen === 'kept'")
    assert kept.opened(browser, "another one 42") == "The passphrase is wrong."
    assert kept.opened(browser, key) == ""
    assert browser.run("state.said") == said
    assert browser.run("[$('kept-name').textContent, $('earlier').children.length]") == ["Mira", 1]
    assert browser.run("$('kept-taken').textContent").startswith("Date not known (added ")
    words = ("given", "May 12, 2019 (from a file)"), ("", "May 12, 2019, 12:00")
    for dating, when in words:
        stated = json.dumps({"taken": "2019-05-12T12:00:00Z", "dating": dating})
        assert browser.run(f"takenInWords({stated})").startswith(f"Photo taken: {when}"), dating
    assert browser.run("$('another').offsetParent === null && $('keeping').offsetParent === null")
    browser.run("$('back').click()")
    browser.wait("state.screen === 'kept' && state.said === null")
    browser.run("$('back').click()")
    browser.choose("#gallery", pictures[1])
    browser.wait("state.screen === 'result'")
    browser.run("$('another').click(); $('kept-again').click()")
    browser.wait("state.screen === 'kept'")
    # A spot that nobody has saved goes where the person says so alone.
    browser.run(f"openKept({json.dumps([name, key])[1:-1]}); 1")
    browser.wait("$('question').open")
    assert browser.run("$('question-no').textContent") == "Back"
    browser.run("$('question-no').click()")
    assert browser.run("[state.screen, state.said.pictures, state.kept]") == ["kept", 1, None]
    kept.damage(browser)
    browser.run("state.saved = state.pictures; 1")
    assert "damaged" in kept.opened(browser, key)
    # The spot at hand did not give way to it.
    assert browser.run("ask('speak', {language: 'en'})") == browser.run("state.said")
    # Named after the day here, as by the app.
    hours = 14 if int(name[11:13]) >= 10 else -12  # where it is another day now
    browser.send("Emulation.setTimezoneOverride", timezoneId=f"Etc/GMT{-hours:+}")
    browser.run("self.own = download; download = (_, name) => { self.named = name; }; 1")
    browser.run("$('kept-list').querySelector('.save').click()")
    browser.wait("self.named")
    here = datetime.fromisoformat(f"{name[:13]}:00:00+00:00") + timedelta(hours=hours)
    assert browser.run("download = own, named") == f"cases-{here:%Y-%m-%d}.dermcases"
    browser.send("Emulation.setTimezoneOverride", timezoneId="")
    browser.run("$('kept-list').querySelector('.delete').click()")
    browser.wait("$('question').open")
    browser.run("$('question').querySelector('[value=yes]').click()")
    browser.wait("!$('kept-none').hidden")
    assert kept.files(browser) == {}
    assert browser.run("$('kept-open').hidden")
    browser.run("newSpot()")


def test_a_kept_case_of_other_networks_is_not_put_together_again(analyzer, pictures, monkeypatch):
    analyses = [analyzer.analyze(path).to_json() for path in pictures[1:3]]
    monkeypatch.setattr(case, "form", dict)  # it is made with the page
    times = [case.Time("2026-11-29T10:00:00Z", "")] * 2
    made = case.rows("Mira", analyses, times, "aa", "2026-11-29T11:00:00Z", "Spot", "")
    rows = [[*row["ids"], json.loads(row["record"])] for row in made["rows"][2:]]
    bundle = analyses[0]["versions"]["bundle_sha256"]
    whole = copy.deepcopy(rows)
    assert [one.analysis for one in case.captures(whole, bundle)] == analyses
    assert len(case.captures(copy.deepcopy(rows[:1]), "another")) == 1
    with pytest.raises(StoreError, match="other networks"):
        case.captures(copy.deepcopy(rows), "another")
    # Of several days, too, the one that was judged last stays the last: its result was shown.
    rows[1][2] |= {"taken": "2019-05-12T12:00:00Z", "dating": "given"}
    assert [one.analysis for one in case.captures(copy.deepcopy(rows), bundle)] == analyses
    newer = copy.deepcopy(rows[:1])
    newer[0][2]["version"] = 99
    with pytest.raises(StoreError, match="cannot read"):
        case.captures(newer, bundle)


def test_an_old_photo_has_no_part_in_what_others_say():
    old, today = case.Time("2019-05-12T12:00:00Z", "given"), "2026-11-29T12:00:00Z"
    fresh, undated, dated = (case.Time(today, dating) for dating in ("", "unknown", "given"))
    later = case.Time("2026-11-30T12:00:00Z", "")  # the day ended meanwhile
    for times, used in (
        ([old, fresh], [1]),
        ([fresh, old], [1]),
        ([fresh, undated, dated, old, fresh], [0, 1, 2, 4]),
        ([fresh, later], [0, 1]),
        ([old, old], [0, 1]),
        ([old], [0]),
    ):
        analyses = [{"number": number} for number in range(len(times))]
        assert [one["number"] for one in case.of_one_day(analyses, times)] == used


def test_a_referral_by_fhir_is_sound_and_tells_nothing_else(visit, pictures, tmp_path):
    from PIL import Image

    browser, path = visit.browser, tmp_path / "Mira.jpg"
    exif = Image.Exif()
    exif[0x010F] = exif[0x010E] = "SENTINEL"  # the camera's maker, a description
    exif.get_ifd(0x8825)[0x1D] = "2020:01:02"  # the date of a GPS position
    exif.get_ifd(0x8769).update({0x9003: "2019:05:12 23:30:00", 0x9011: "-05:00"})
    Image.fromarray(read_image(pictures[1]).pixels).save(path, quality=95, exif=exif)
    assert b"SENTINEL" in path.read_bytes()
    browser.run("newSpot()")
    browser.choose("#gallery", path)
    browser.wait("state.screen === 'result'")
    browser.run("$('save-name').value = 'Mira'; $('refer').click()")
    browser.wait("state.screen === 'referral'")
    shown = "$('refer-consent').innerText.replaceAll('\\n\\n', '\\n')"
    assert browser.run(shown) == consent.text(consent.CURRENT, "en")
    for answer, lacks in (
        ("1", "what it shows"),
        ("$('refer-pictures').querySelector('select').value = 'close_up'", "where the spot is"),
        ("$('refer-site').value = 'left calf'", "Ask for consent"),
        ("$('refer-agree').click(); $('refer-question').value = 'Is Mira ill?'", "name or notes"),
    ):
        assert lacks in kept.fault_of_referral(browser, answer)
    answer = "$('refer-question').value = 'Harmless?'; $('refer-priority').value = 'urgent'"
    assert kept.fault_of_referral(browser, answer) == ""
    rows = browser.run("$('refer-rows').innerText")
    assert all(words in rows for words in ("left calf", "Urgent", "Harmless?", "Close-up"))
    content = kept.file_of(browser, "saveReferral()")
    browser.run("newSpot()")
    left = "[referring, $('refer-rows').textContent, $('refer-question').value,"
    assert browser.run(f"{left} $('refer-site').value]") == [None, "", "", ""]
    bundle = json.loads(content)
    assert faults(bundle) == []
    for told in (b"Mira", b"SENTINEL", b"2020:01:02", b"Exif"):
        assert told not in content
    sent = {entry["resource"]["resourceType"]: entry["resource"] for entry in bundle["entry"]}
    assert set(sent) == {"Patient", "Device", "BodyStructure", "Consent", "DocumentReference",
                         "RiskAssessment", "ServiceRequest", "Task"}  # fmt: skip
    assert sent["ServiceRequest"]["priority"] == "urgent"
    assert sent["ServiceRequest"]["note"] == [{"text": "Harmless?"}]
    assert sent["Patient"].keys() == {"resourceType", "identifier", "gender"}
    assert sent["BodyStructure"]["location"]["coding"][0]["code"] == codes.site("left calf").value
    attached = sent["DocumentReference"]["content"][0]["attachment"]
    assert datetime.fromisoformat(attached["creation"]) == datetime(
        2019, 5, 13, 4, 30, tzinfo=timezone.utc
    )
    data = base64.b64decode(attached["data"])
    assert b"SENTINEL" not in data
    assert b"Exif" not in data
    (tmp_path / "sent.jpg").write_bytes(data)
    seen = read_image(tmp_path / "sent.jpg").pixels.astype(int)
    assert np.abs(seen - read_image(path).pixels).mean() < 3


def test_live_hints_and_a_photo_from_the_camera(visit):
    browser = visit.browser
    browser.run("show('check'); $('live-switch').click()")
    browser.wait("state.live && state.live.looks > 1")
    assert browser.run("$('guidance').textContent")
    assert browser.run("$('live').querySelectorAll('path').length") == 2
    browser.run("$('shutter').click()")
    browser.wait("state.screen === 'result'")
    assert browser.run("state.live === null && $('video').srcObject === null")
    assert browser.run("state.analysis.size.length") == 2
    # It is of now, as no file from a gallery is.
    wanted = """{id: crypto.randomUUID(), now: new Date().toISOString(), site: "left calf",
      priority: "routine", kinds: ["close_up"], question: "", private: [],
      consent: {version: %s, language: "en", given: new Date().toISOString()}}"""
    rows = browser.run(f"ask('referralRows', {{wanted: {wanted % json.dumps(consent.CURRENT)}}})")
    assert str(datetime.now(timezone.utc).date()) in dict(rows)["Picture 1"]
    browser.run("newSpot()")


def test_the_browser_s_own_back_is_the_page_s(visit, pictures):
    browser = visit.browser
    browser.run("show('welcome'); $('agree').checked || $('agree').click(); $('start').click()")
    browser.choose("#gallery", pictures[1])
    browser.wait("state.screen === 'result'")
    # Each left the page, and took the photo with it.
    for button in ("help", "refer", "another"):
        browser.run(f"$('{button}').click()")
        browser.wait("state.screen !== 'result'")
        browser.run("history.back()")
        browser.wait("state.screen === 'result'", 10)
        assert browser.run("state.pictures.length") == 1
    browser.run("newSpot()")


def test_no_camera_stays_on_behind_the_page(visit):
    browser = visit.browser
    browser.run(
        "self.streams = []; self.allow = () => {}; newSpot();"
        "navigator.mediaDevices.getUserMedia = () => new Promise((done) => {"
        "  const before = allow; self.allow = () => { before(); self.allow = () => {};"
        "    const canvas = document.createElement('canvas');"
        "    canvas.getContext('2d').fillRect(0, 0, 9, 9);"
        "    streams.push(canvas.captureStream(30)); done(streams.at(-1)); }; }); 1"
    )
    left = "streams.filter((one) => one.getVideoTracks()[0].readyState === 'live').length"
    settled = "new Promise((done) => setTimeout(done))"
    # Two taps; and somebody who goes on before the camera is allowed.
    for presses in ("$('live-switch').click(); $('live-switch').click()",
                    "$('live-switch').click(); $('help').click()"):  # fmt: skip
        browser.run(f"{presses}; allow(); {settled}")
        browser.run("closeLive(); show('check')")
        assert browser.run(f"[streams.length > 0, {left}]") == [True, 0]
    # One that is taken away is said to be gone: its last picture stays where it was.
    browser.run(f"$('live-switch').click(); allow(); {settled}")
    browser.run("streams.at(-1).getVideoTracks()[0].dispatchEvent(new Event('ended'))")
    assert "The camera stopped." in browser.run("$('error').textContent")
    assert browser.run(f"[state.live, $('stage').hidden, {left}]") == [None, True, 0]
    browser.run("delete navigator.mediaDevices.getUserMedia; newSpot()")


def test_works_without_the_server_and_asks_nobody_else(visit, pictures):
    visit.stop_server()
    visit.browser.open("about:blank")
    visit.start()
    assert visit.analyse(pictures[1])["analysis"]["triage"]
    stored = visit.browser.run("Promise.all([localStorage.length, sessionStorage.length,"
                             " indexedDB.databases().then((x) => x.length)])")  # fmt: skip
    assert stored == [0, 0, 0]
    assert kept.files(visit.browser) == {}
    assert visit.foreign() == []
    # A page that asks another machine gets nothing, whatever asks.
    refused = "fetch('https://example.com/').then(() => 'let through', () => 'refused')"
    assert visit.browser.run(refused) == "refused"


class _Assets(BaseHTTPRequestHandler):
    """Answers as `Site.java` does."""

    assets: Mapping[str, bytes]

    def do_GET(self) -> None:
        about = json.loads(self.assets["assets/site.json"])
        path = self.path.lstrip("/") or "index.html"
        content = self.assets.get(f"assets/site/{path}")
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Type", about["files"].get(path, "text/plain"))
        policy = about["worker_policy" if path == "worker.js" else "policy"]
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


# What PageActivity.java gives the page.
DEVICE = "self.dermedgeDevice = {saved: [], save(...x) { this.saved.push(x); }, print() {}};"


def test_in_an_apk_it_works_from_the_assets_alone(site, pictures, analyzer):
    content = apk.assets(apk.read_site(site))
    handler = type("Handler", (_Assets,), {"assets": content})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    browser = Chromium()
    try:
        browser.send("Page.addScriptToEvaluateOnNewDocument", source=DEVICE)
        browser.open(f"http://127.0.0.1:{server.server_address[1]}/index.html")
        browser.wait(READY, 180)
        assert browser.run("deviceBack()") is False  # on the first screen: out of the app
        browser.run("show('check')")
        browser.choose("#gallery", pictures[1])
        browser.wait("state.screen === 'result'")
        expected = analyzer.analyze(pictures[1])
        assert browser.run("state.analysis.triage") == expected.triage
        assert browser.run("state.analysis.malignancy") == pytest.approx(
            expected.malignancy, abs=1e-5
        )
        key = "grün Tisch 7 Wolke"
        browser.run(
            f"$('save-name').value = 'Mira'; $('save-key').value = $('save-again').value = '{key}';"
            "save().then(() => 1)"
        )
        browser.wait("dermedgeDevice.saved.length === 1")
        name, kind, data = browser.run("dermedgeDevice.saved[0]")
        assert name.endswith(".dermcases")
        assert b"SQLite format 3" in base64.b64decode(data)[:16], kind
        browser.run("deviceNotSaved('no room')")
        assert "no room" in browser.run("$('save-fault').textContent")
        assert browser.run("[state.pictures.length, state.saved]") == [1, None]
        browser.run("$('help').click()")
        assert browser.run("deviceBack() && state.screen") == "result"
        # While a case is kept it leads nowhere, and a question is answered by it.
        browser.run("self.own = ask; ask = () => new Promise((_, fail) => { self.goOn = fail; });"
                    " keepThis(new Event('submit')); 1")  # fmt: skip
        assert browser.run("deviceBack() && state.screen") == "result"
        browser.run("ask = own; goOn({ said: 'It did not succeed.' })")
        assert browser.run("$('keep-fault').textContent") == "It did not succeed."
        browser.run("show('kept'); sure('', 'No', 'Yes').then((yes) => { self.yes = yes; }); 1")
        assert browser.run("deviceBack() && state.screen") == "kept"
        browser.wait("self.yes === false")
        # Nothing was kept a second time.
        assert browser.run("caches.keys().then((x) => x.length)") == 0
    finally:
        browser.close()
        server.shutdown()
        server.server_close()


def _tiny(folder: Path, name: str) -> None:
    """The page as it is, about a worker that only says which version it is."""
    versions = {"dermedge": "", "bundle": name, "bundle_sha256": "", "opencv": "", "runtime": ""}
    result = json.dumps({"versions": versions, "marks": {"ready": 0}})
    worker = f"onmessage = ({{data}}) => postMessage({{id: data.id, result: {result}}})"
    content = {file: page(file) for file in ("index.html", "style.css", *SCRIPTS)}
    content["worker.js"] = worker.encode()
    content["files/model.dermbundle"] = random.Random(name).randbytes(50_000)
    vendor = web.archives()
    write_site(folder, content, packed(folder / "packed", content, 1), unpacker(vendor))


def test_update_is_used_only_when_it_is_whole(tmp_path):
    _needs_chromium()
    folder = tmp_path / "site"
    _tiny(folder, "older")
    names = "document.readyState === 'complete' && state.versions && state.versions.bundle"
    waiting = (
        "navigator.serviceWorker.getRegistration().then((x) => x.update().then(() =>{}, () =>{}))"
    )
    with Visit(folder) as visit:
        browser = visit.browser
        visit.start()
        assert browser.run(names) == "older"
        _tiny(folder, "newer")
        files = json.loads(re.search(r"const FILES = (.*);  //", (folder / "sw.js").read_text())[1])
        part = folder / "files" / f"{files['files/model.dermbundle'][0][:32]}.br"
        content = part.read_bytes()
        middle = len(content) // 2
        part.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        browser.run(waiting)
        installing = "navigator.serviceWorker.getRegistration().then((x) => !x.installing)"
        browser.wait(installing)
        assert browser.run("$('update').hidden")
        browser.open("about:blank")
        visit.start()
        assert browser.run(names) == "older"
        age = part.stat().st_mtime
        part.write_bytes(content)
        os.utime(part, (age, age))  # to the browser it may be the file that it has already
        # The attempt that the start made may still be failing: then ask once more.
        browser.wait(f"{waiting}.then(() => !$('update').hidden)")
        assert browser.run(names) == "older"
        browser.run("$('take-over').click()")
        browser.wait(f"{READY} && state.versions.bundle === 'newer'")
        assert browser.run("caches.keys().then((x) => x.length)") == 1
        # One that was being fetched before the page listened is offered, too.
        browser.run(
            "self.early = Object.assign(new EventTarget(), {installing: new EventTarget()});"
            "$('update').hidden = true; watch(early)"
        )
        assert browser.run("$('update').hidden")
        browser.run("early.waiting = early.installing; early.installing = null")
        browser.run("early.waiting.dispatchEvent(new Event('statechange'))")
        assert not browser.run("$('update').hidden")


def test_each_way_into_the_page_ends_at_a_page_or_says_why_not(tmp_path):
    _needs_chromium()
    folder = tmp_path / "site"
    _tiny(folder, "one")
    script = (folder / "sw.js").read_bytes()
    settled = f"{STARTED} && {SETTLED} && loading.stage"
    with Visit(folder) as visit:
        browser, origin = visit.browser, visit.address.rstrip("/")
        # A host that fails is none without https, and a full device no bad network.
        (folder / "sw.js").unlink()
        browser.open(visit.address)
        assert browser.wait(settled) == "failed"
        (folder / "sw.js").write_bytes(script)
        browser.send("Storage.overrideQuotaForOrigin", origin=origin, quotaSize=20_000)
        browser.open("about:blank")
        browser.open(visit.address)
        assert browser.wait(settled) == "full"
        assert "not enough room on this device for the page" in browser.run(
            "$('progress').textContent"
        )
        browser.send("Storage.overrideQuotaForOrigin", origin=origin)
        browser.open("about:blank")
        visit.start()
        # Reloaded past what is kept; and what is kept was lost.
        browser.run("self.old = true")
        browser.send("Page.reload", ignoreCache=True)
        browser.wait(f"self.old === undefined && {READY}", 10)
        gone = "caches.keys().then((all) => Promise.all(all.map((one) => caches.delete(one))))"
        browser.run(f"{gone}.then(() => 1)")
        browser.open("about:blank")
        visit.start()
        # Brought back by the browser's "Back", perhaps to another person.
        browser.run("self.old = true; state.pictures = [1]; $('save-name').value = 'Mira'; 1")
        browser.run("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
        browser.wait(f"self.old === undefined && {READY}", 10)
        assert browser.run("[state.screen, state.pictures, namesTyped()]") == ["welcome", [], []]
        # Another page of this browser took a new version: this one can still follow.
        browser.run("self.old = true; navigator.serviceWorker.dispatchEvent("
                    "new Event('controllerchange'))")  # fmt: skip
        assert not browser.run("$('update').hidden")
        browser.run("$('take-over').click()")
        browser.wait(f"self.old === undefined && {READY}", 10)


@pytest.mark.parametrize("newest", [False, True])
def test_an_update_leaves_a_still_newer_one_that_is_just_fetched_its_files(newest):
    """Without them that would answer each request by 'not part of this page', for good."""
    script = (PAGE / "sw.js").read_text(encoding="utf-8").replace("@FILES@", "{}")
    stage = """
      const names = ["dermedge / older", "dermedge / @BUILD@", "dermedge / newest", "another"];
      const listeners = {}, gone = [];
      globalThis.importScripts = () => {};
      globalThis.caches = { keys: async () => names, delete: async (name) => gone.push(name) };
      globalThis.self = { clients: { claim: async () => {} },
        registration: { scope: "https://host/", installing: NEWEST },
        addEventListener: (name, listener) => { listeners[name] = listener; } };
      (0, eval)(require("fs").readFileSync(0, "utf8"));
      listeners.activate({ waitUntil: (done) => done.then(() => console.log(gone.join())) });
    """.replace("NEWEST", "{}" if newest else "null")
    command = [web.node(), "-e", stage]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("" if newest else "dermedge / older,dermedge / newest")


def test_the_worker_has_all_of_its_own_scripts_before_another_page_takes_an_update():
    """Those of another version would seal what this one's Python says, or not open it."""
    stage = """
      globalThis.self = globalThis;
      self.onmessage = null;
      self.location = { href: "https://host/worker.js" };
      const { readFileSync } = require("fs"), { runInThisContext } = require("vm");
      self.importScripts = (...all) => all.forEach((one) =>
        runInThisContext(readFileSync(`FOLDER/${one.split("/").pop()}`, "utf8")));
      importScripts("worker.js");
      console.log(runInThisContext("typeof sealedCase + typeof openedCase + typeof keepCase"));
    """.replace("FOLDER", str(PAGE))
    done = subprocess.run([web.node(), "-e", stage], capture_output=True, text=True)
    assert done.stdout.strip() == 3 * "function", done.stderr


def test_the_size_cards_are_whole_pdfs_without_a_date():
    for name, content in _about().items():
        if name.endswith(".pdf"):
            start = int(content.rpartition(b"startxref")[2].split()[0])
            assert content[start:].startswith(b"xref"), name
            assert b"CreationDate" not in content


def test_packages_must_be_the_pinned_ones(tmp_path):
    (tmp_path / PYODIDE.file).write_bytes(b"another")
    with pytest.raises(PackageError, match="is not pyodide"):
        fetch(tmp_path)
    lock = json.dumps(
        {"packages": {"numpy": {"sha256": "0" * 64, "file_name": "numpy.whl", "version": "2"}}}
    ).encode()
    with pytest.raises(PackageError, match=r"take numpy\.whl"):
        numpy_wheel(lock, None)
    wheel = tmp_path / "numpy.whl"
    wheel.write_bytes(b"another")
    with pytest.raises(PackageError, match="SHA-256"):
        numpy_wheel(lock, wheel)


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        build(open_bundle(), tmp_path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_host_serves_no_half_of_a_file_while_the_site_is_built_again(tmp_path):
    def write(version: bytes) -> None:
        content = {"index.html": version, "files/same": b"same"}
        write_site(tmp_path, content, {**content, "index.html": b"packed " + version}, version)

    write(b"one")
    names = [path for path in tmp_path.rglob("*") if path.is_file()]
    before = [path.read_bytes() for path in names]
    with contextlib.ExitStack() as stack:
        served = [stack.enter_context(path.open("rb")) for path in names]
        write(b"two")
        assert [file.read() for file in served] == before
    assert (tmp_path / "index.html").read_bytes() == b"two"


@pytest.mark.parametrize("named", ["out", "vendor"])
def test_what_could_not_be_written_is_refused_before_the_work(named, tmp_path, monkeypatch):
    folders = {name: tmp_path / name for name in ("out", "vendor")}
    (shut := folders[named]).mkdir()
    made = tempfile.TemporaryFile

    def refused(**values):
        if Path(values["dir"]) == shut:
            raise PermissionError(13, "Permission denied")
        return made(**values)

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(PermissionError, match=named):
        build(open_bundle(), folders["out"], folders["vendor"], tmp_path / "no.whl")
    assert not any(shut.iterdir())


def test_no_key_is_made_for_an_apk_that_cannot_be(tmp_path, monkeypatch, capsys):
    def key(*_):
        raise AssertionError("a key is made")

    monkeypatch.setattr(apk, "new_key", key)
    monkeypatch.setattr("edge_app.web.commands.ask_secret", key)
    site, words = tmp_path / "site", ["web", "apk", "--key", "clinic.p12", "--new-key"]
    assert main([*words, "--site", str(site)]) == 2
    assert "is no site" in capsys.readouterr().err
    write_site(site, {}, {}, b"")
    assert main([*words, "--site", str(site), "--out", str(tmp_path / "gone" / "a.apk")]) == 2
    assert "gone: No such file" in capsys.readouterr().err
