"""What is asked, saved and exported for training."""

from __future__ import annotations

import contextlib
import csv
import http.client
import json
import os
import random
import re
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from analyses import analysis
from store.store_cases import PASSPHRASE, QUICK
from zones import far_east

from dermedge import DISCLAIMER, UserError, cli
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data import load
from dermedge.image.read import read_mask
from dermedge.taxonomy import TITLES
from edge_app import cases as cases_of_the_app
from edge_app.i18n import language
from edge_app.labelling import commands, page, queue
from edge_app.labelling.export import export
from edge_app.labelling.queue import Question, allowed, questions
from edge_app.labelling.server import LabelServer
from edge_app.labelling.sitting import Sitting
from edge_app.presentation.comparison import AUDIT_EVENTS
from edge_app.qa import chromium
from edge_app.store import derivation
from edge_app.store.damage import LeftOut
from edge_app.store.labels import MOST_POINTS, ROLES, Label
from edge_app.store.store import Capture, Lesion, Person, Store, StoreError
from edge_app.web.serve import Server

SIZE = (40, 30)
SQUARE = ((5.0, 5.0), (15.0, 5.0), (15.0, 15.0), (5.0, 15.0))
NEVUS = Label("confirmed", "nv", (SQUARE,), "Dr. Ames", "dermatologist", "0" * 64)


@pytest.fixture
def cases(tmp_path, monkeypatch):
    monkeypatch.setattr(derivation, "ARGON2", QUICK)
    opened = Store.create(tmp_path / "cases.db", PASSPHRASE)
    yield opened
    opened.close()


def taken(cases: Store, name: str, count: int = 1) -> list[Capture]:
    """Pictures of one lesion of a new person, each of another colour."""
    person = cases.add_person(Person("", name))
    lesion = cases.add_lesion(Lesion("", person.id, "arm"))
    found = []
    for number in range(count):
        pixels = np.full((SIZE[1], SIZE[0], 3), 90 + 20 * number, np.uint8)
        picture = cv2.imencode(".png", pixels)[1].tobytes()
        kind = ("", "close_up", "dermoscopic")[number % 3]
        capture = Capture("", lesion.id, "", analysis(SIZE), SIZE, kind=kind)
        found.append(cases.add_capture(capture, picture))
    return found


def person_of(cases: Store, name: str) -> Person:
    return next(one for one in cases.people() if one.name == name)


def asked(capture: Capture) -> Question:
    judged = capture.kind != "close_up"
    return Question(capture.id, SIZE, (SQUARE,), {"nv": 0.6, "mel": 0.4}, judged, np.zeros(2))


def test_only_pictures_of_those_who_allowed_it_are_asked_about(cases):
    ours, theirs = taken(cases, "Ada"), taken(cases, "Bea")
    assert list(allowed(cases)) == []
    ada = person_of(cases, "Ada")
    cases.labels.allow(ada.id, "Nurse Kim")
    assert [capture.id for _person, capture in allowed(cases)] == [ours[0].id]
    assert theirs[0].id not in {capture.id for _person, capture in allowed(cases)}
    cases.labels.forbid(ada.id)
    assert list(allowed(cases)) == []


def test_a_label_is_sealed_undone_and_goes_with_its_picture(cases, tmp_path):
    (capture,) = taken(cases, "Ada")
    cases.labels.add(capture.id, NEVUS)
    second = cases.labels.add(capture.id, replace(NEVUS, diagnosis="mel"))
    assert cases.labels.of(capture.id) == second
    assert second.diagnosis == "mel"
    cases.labels.undo(capture.id, second)
    kept = cases.labels.of(capture.id)
    assert (kept.diagnosis, kept.outline, bool(kept.when)) == ("nv", (SQUARE,), True)
    cases.check()
    on_disk = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"Ames" not in on_disk
    cases.labels.allow(person_of(cases, "Ada").id, "Nurse Kim")
    cases.labels.forbid(person_of(cases, "Ada").id)
    entered = {entry.what for entry in cases.audit()}
    assert {"add-label", "undo-label"} <= entered <= set(AUDIT_EVENTS)  # which has their words
    cases.delete_person(person_of(cases, "Ada").id)
    assert not cases._file.select("SELECT 1 FROM store WHERE name LIKE 'label %'")
    with pytest.raises(StoreError, match="not in the store any more"):
        cases.labels.add(capture.id, NEVUS)
    cases.check()


def test_two_programs_lose_and_take_back_no_label_of_each_other(cases, tmp_path, monkeypatch):
    (capture,) = taken(cases, "Ada")
    theirs = replace(NEVUS, by="Bo", role="nurse", diagnosis="mel")
    other = Store.open(tmp_path / "cases.db", PASSPHRASE)
    begin = cases._file.writing

    def late(*given):  # the other program is between what this one reads and what it writes
        monkeypatch.undo()
        other.labels.add(capture.id, theirs)
        return begin(*given)

    monkeypatch.setattr(cases._file, "writing", late)
    ours = cases.labels.add(capture.id, NEVUS)
    assert [one.by for one in cases.labels._history(capture.id)] == ["Bo", "Dr. Ames"]
    last = other.labels.add(capture.id, theirs)
    cases.labels.undo(capture.id, ours)
    assert cases.labels.of(capture.id) == last
    assert [one.by for one in cases.labels._history(capture.id)] == ["Bo", "Bo"]
    other.close()


def test_a_store_with_a_long_outline_is_taken_by_another_device(cases, tmp_path):
    (capture,) = taken(cases, "Ada")
    drawn = tuple((at / 70 + 1 / 3, at / 90 + 1 / 7) for at in range(MOST_POINTS))
    cases.labels.add(capture.id, replace(NEVUS, outline=(drawn,)))
    cases.close()
    with contextlib.closing(Store.create(tmp_path / "here", PASSPHRASE)) as here:
        assert here.merge(tmp_path / "cases.db", PASSPHRASE) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"diagnosis": "a mole"},
        {"verdict": "cannot tell"},
        {"by": " "},
        {"role": "engineer"},
        {"outline": (SQUARE[:2],)},
        {"outline": (((-1.0, 0.0), *SQUARE),)},
        {"outline": (((float("nan"), 0.0), *SQUARE),)},
    ],
)
def test_labels_that_make_no_sense_are_refused(cases, wrong):
    (capture,) = taken(cases, "Ada")
    with pytest.raises(StoreError):
        cases.labels.add(capture.id, replace(NEVUS, **wrong))
    assert cases.labels.of(capture.id) is None


@pytest.fixture
def served(cases):
    captures = taken(cases, "Ada", 3)
    cases.labels.allow(person_of(cases, "Ada").id, "Nurse Kim")
    sitting = Sitting(cases, list(map(asked, captures)), "Dr. Ames", "dermatologist", "0" * 64)
    server = LabelServer(sitting)
    yield cases, captures, server
    server.close()


def request(server: LabelServer, path: str, body=None, headers=None, token: str | None = None):
    at = urlsplit(server.address)
    link = http.client.HTTPConnection(at.netloc, timeout=20)
    base = at.path if token is None else f"/{token}/"
    method, data = ("GET", None) if body is None else ("POST", json.dumps(body))
    link.request(method, base + path, data, headers or {})
    answer = link.getresponse()
    content = answer.read()
    link.close()
    return answer, content


def kept(cases: Store, name: str, picture: bytes, size: tuple[int, int]) -> Capture:
    """A picture of a person who allowed it."""
    person = cases.add_person(Person("", name))
    cases.labels.allow(person.id, "Nurse Kim")
    lesion = cases.add_lesion(Lesion("", person.id, "arm"))
    return cases.add_capture(Capture("", lesion.id, "", analysis(size), size), picture)


def test_an_outline_to_the_edge_of_a_reduced_picture_can_be_confirmed(cases, tiny_bundle):
    size = 4608, 601  # read at a quarter: its last row covers a single one of the whole
    pixels = np.full((size[1], size[0]), 220, np.uint8)
    pixels[300:, 1000:2000] = 20
    capture = kept(cases, "Ada", cv2.imencode(".jpg", pixels)[1].tobytes(), size)
    asked = questions(cases, Analyzer(Bundle.open(tiny_bundle)))
    sitting = Sitting(cases, asked, "Dr. Ames", "dermatologist", "0" * 64)
    sitting.answer(capture.id, "confirmed", "nv", sitting.state()["question"]["outline"])
    assert max(y for _x, y in cases.labels.of(capture.id).outline[0]) == size[1] - 1


def test_the_model_knows_of_a_person_what_the_app_tells_it(cases, make_bundle):
    picture = cv2.imencode(".png", np.full((64, 64), 99, np.uint8))[1].tobytes()
    capture = kept(cases, "Ada", picture, (64, 64))
    analyzer = Analyzer(Bundle.open(make_bundle(metadata=("sex",))))
    proposed = []
    for sex in (None, "female"):
        cases.update_person(replace(person_of(cases, "Ada"), sex=sex))
        (asked,) = questions(cases, analyzer)
        proposed.append(asked.probabilities["mel"])
        known = cases_of_the_app.metadata_of(cases, capture)
        assert known.get("sex") == sex
        said = analyzer.analyze(picture, metadata=known)
        assert asked.probabilities == said.probabilities
    assert abs(proposed[1] - proposed[0]) > 0.1


def test_two_who_label_at_once_begin_with_different_pictures(cases, tiny_bundle, monkeypatch):
    picture = cv2.imencode(".png", np.full((64, 64), 99, np.uint8))[1].tobytes()
    monkeypatch.setattr(queue, "AT_ONCE", 3)
    for number in range(4):
        kept(cases, f"P{number}", picture, (64, 64))
    analyzer = Analyzer(Bundle.open(tiny_bundle))
    orders = []
    for seed in (0, 1):
        random.seed(seed)
        orders.append([one.capture for one in questions(cases, analyzer)])
    first, second = orders
    assert first[0] != second[0]
    assert {*first[:3]} == {*second[:3]}  # the more doubtful ones come first all the same
    assert {*first} == {*second}


@pytest.mark.parametrize("how", ["damaged", "too small", "deleted"])
def test_a_picture_that_cannot_be_read_stops_no_other(cases, tmp_path, tiny_bundle, how):
    picture = cv2.imencode(".png", np.full((64, 64), 99, np.uint8))[1].tobytes()
    small = cv2.imencode(".png", np.full((8, 8), 99, np.uint8))[1].tobytes()
    first = kept(cases, "Ada", small if how == "too small" else picture, (64, 64))
    second = kept(cases, "Bea", picture, (64, 64))
    for one in (first, second):
        cases.labels.add(one.id, replace(NEVUS, by="Bo"))
    third = kept(cases, "Cleo", picture, (64, 64))
    if how == "damaged":
        with cases._file.writing() as connection:
            wrong = connection.execute("SELECT data FROM picture").fetchone()[0][:-1] + b"x"
            connection.execute("UPDATE picture SET data = ? WHERE capture = ?", (wrong, first.id))
    elif how == "deleted":  # after the list was made
        read = cases.picture
        cases.picture = lambda id: (id == first.id and cases.delete_capture(id)) or read(id)
    left: list = []

    def note(what: str, _error: UserError) -> None:
        left.append(what)

    asked = questions(cases, Analyzer(Bundle.open(tiny_bundle)), leave_out=note)
    assert [one.capture for one in asked] == [third.id]
    assert export(cases, tmp_path / "out", note) == (1, 1)
    assert len(left) == (0 if how == "deleted" else 2)
    assert all(first.id in what and person_of(cases, "Ada").id in what for what in left)


def test_answers_are_saved_one_by_one_and_taken_back(served):
    cases, captures, server = served
    before = request(server, "state")[1]
    state = json.loads(before)
    assert "not a diagnosis" in state["disclaimer"].lower()
    assert (state["count"], state["question"]["id"]) == (3, captures[0].id)
    given = {"id": captures[0].id, "verdict": "confirmed", "diagnosis": "mel", "outline": [SQUARE]}
    assert request(server, "answer", given)[0].status == 200
    # Pressed twice: the second is to another picture than is shown.
    answer, said = request(server, "answer", given)
    assert (answer.status, "was not saved" in json.loads(said)["error"]["en"]) == (409, True)
    first, second = (json.loads(text)["question"] for text in (before, request(server, "state")[1]))
    assert (first["judged"], first["probabilities"]) == (True, {"nv": 0.6, "mel": 0.4})
    # Of a picture that was refused the page gets no estimate to show.
    assert (second["judged"], second["probabilities"]) == (False, {})
    unsure = {"id": captures[1].id, "verdict": "cannot tell", "outline": [SQUARE]}
    assert request(server, "answer", unsure)[0].status == 200
    assert cases.labels.of(captures[0].id).by == "Dr. Ames"
    assert cases.labels.of(captures[1].id).outline == ()
    assert request(server, "undo", {})[0].status == 200
    assert cases.labels.of(captures[1].id) is None
    assert json.loads(request(server, "state")[1])["done"] == 1
    off = {**given, "id": captures[1].id, "outline": [[[0, 0], [39, 0], [40, 30]]]}
    assert b"off the picture" in request(server, "answer", off)[1]
    for outline in (7, [[1]], [[["a", 2], [1, 2], [3, 4]]], None):
        assert request(server, "answer", {**off, "outline": outline})[0].status == 409


@pytest.mark.parametrize("how", ["deleted", "forbidden", "labelled"])
def test_what_is_gone_meanwhile_is_asked_no_more_and_the_rest_is(served, how):
    cases, captures, server = served
    assert json.loads(request(server, "state")[1])["question"]["id"] == captures[0].id
    if how == "deleted":
        cases.delete_capture(captures[0].id)
    elif how == "labelled":  # in another program
        cases.labels.add(captures[0].id, NEVUS)
    else:
        cases.labels.forbid(person_of(cases, "Ada").id)
    answer = {"id": captures[0].id, "verdict": "cannot tell"}
    assert request(server, "picture/" + captures[0].id)[0].status == 404
    refused, said = request(server, "answer", answer)
    assert refused.status == 409
    # By then the page shows the next one, or that there is none.
    assert json.loads(said)["error"]["en"] == (
        "This answer was not saved: its picture is not asked about any more."
    )
    state = json.loads(request(server, "state")[1])
    left = [] if how == "forbidden" else captures[1:]
    assert (state["done"], state["count"]) == (0, len(left))
    assert (state["question"] or {}).get("id") == (left[0].id if left else None)
    assert getattr(cases.labels.of(captures[0].id), "diagnosis", "") == (
        "nv" if how == "labelled" else ""
    )


def test_the_page_says_nothing_that_is_not_in_the_catalogues():
    text = Path(page.__file__).with_name("page.html").read_text(encoding="utf-8")
    used = {*re.findall(r'data-(?:t|label)="([^"]*)"', text)}
    said = re.findall(r'\b(?:t|fail)\(((?:\s*\+?\s*"[^"]*")+)|throw ((?:\s*\+?\s*"[^"]*")+)', text)
    used |= {"".join(re.findall(r'"([^"]*)"', "".join(call))) for call in said}
    assert used | {"not known", *ROLES} == {*page.MESSAGES}
    assert set(re.findall("@[A-Z_]+@", page.html())) == {"@NONCE@"}


def test_what_is_refused_is_said_in_each_language(served):
    _cases, captures, server = served
    wrong = {"id": captures[0].id, "verdict": "confirmed", "diagnosis": "a mole"}
    said = json.loads(request(server, "answer", wrong)[1])["error"]
    assert said["en"] == "A label needs a class, or says that nobody could say which."
    assert said["de"].startswith("Eine Antwort nennt eine Klasse")
    assert {*said} == {*language.LANGUAGES}
    assert language.current() == "en"


@pytest.fixture(scope="module")
def browser():
    if chromium.program() is None:
        pytest.skip("needs Chromium")
    browser = chromium.Chromium()
    yield browser
    browser.close()


def prefers(browser: chromium.Chromium, name: str) -> None:
    agent = browser.run("navigator.userAgent")
    browser.send("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=name)


def test_the_page_speaks_the_languages_and_is_used_by_keys_alone(served, browser):
    cases, captures, server = served

    def press(*keys: str) -> str:
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowRight": 39, "ArrowDown": 40}
        for key in keys:
            values = {"key": key, "windowsVirtualKeyCode": codes[key]}
            letter = {"Enter": "\r", " ": " "}.get(key, "")
            browser.send("Input.dispatchKeyEvent", type="keyDown", text=letter, **values)
            browser.send("Input.dispatchKeyEvent", type="keyUp", **values)
        return browser.run("document.activeElement.id || document.activeElement.value")

    prefers(browser, "ar-EG,de")
    try:
        browser.open(server.address)
        browser.wait("!document.getElementById('bad').disabled")
        assert browser.run("[document.documentElement.lang, document.documentElement.dir]") == [
            "ar", "rtl",
        ]  # fmt: skip
        for name in language.LANGUAGES:
            browser.run(f"speak('{name}')")
            language.use(name)
            said = browser.run(
                "[...document.querySelectorAll('[data-t]')].map(x => [x.dataset.t, x.textContent])"
            )
            assert [line for english, line in said if line != language._(english)] == []
            assert {*TITLES.values(), "Confirm"} <= {english for english, _line in said}
            assert browser.run("$('disclaimer').textContent") == language._(DISCLAIMER)
            assert browser.run("$('role').textContent") == language._("dermatologist")
            assert browser.run("document.documentElement.dir") == ("rtl" if name == "ar" else "ltr")
            browser.run("fail('The picture cannot be shown.')")
            assert browser.run("$('error').textContent") == language._(
                "The picture cannot be shown."
            )
            for width, letters in ((360, "100%"), (360, "200%"), (1280, "100%")):
                browser.resize(width, 800)
                browser.run(f"document.documentElement.style.fontSize = '{letters}'")
                assert browser.run("document.documentElement.scrollWidth") <= width, (name, letters)
        browser.run("fail(null); document.documentElement.style.fontSize = ''")
        pressed = "[...document.querySelectorAll('button, select, .class')]"
        assert browser.run(f"Math.min(...{pressed}.map(x => x.offsetHeight))") >= 44
        nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
        named = {node["role"]["value"]: node["name"]["value"] for node in nodes if "name" in node}
        stops = ("button", "radio", "combobox", "image", "group")
        assert all(named[role] for role in stops), named
        language.use("en")
        browser.run("speak('en'); $('language').focus()")
        order = ["accept", "draw", "none", "nv", "confirm", "unsure", "bad"]
        assert [press("Tab") for _ in order] == order
        # An outline of three points, by keys.
        browser.run("$('draw').focus()")
        assert press("Enter") == "view"
        press("Enter", "ArrowRight", "Enter", "ArrowDown", "Enter")
        browser.run("document.querySelector('input[value=mel]').focus()")
        press(" ")
        browser.run("$('confirm').focus()")
        press("Enter")
        # Of the second picture, which was refused: it is announced, and the keyboard is there.
        browser.wait("!busy && !$('bad').disabled && question.id === " + json.dumps(captures[1].id))
        assert browser.run("document.activeElement.id") == "accept"
        live = "document.querySelector('#now[aria-live=polite]')"
        assert browser.run(f"{live}.innerText").split("\n")[0] == "Picture 2 of 3"
        assert "refuses" in browser.run(f"{live}.innerText")
        label = cases.labels.of(captures[0].id)
        assert (label.diagnosis, len(label.outline[0])) == ("mel", 3)
        x, y = np.ptp(label.outline[0], axis=0)
        assert 0 < x < SIZE[0] / 10
        assert 0 < y < SIZE[1] / 10
        for _ in range(2):
            browser.run("$('unsure').focus()")
            press("Enter")
            browser.wait("!busy && !(question && $('bad').disabled)")
        assert browser.run("document.activeElement.id") == "now"
        assert browser.run(f"{live}.innerText").startswith("All pictures are answered")
        browser.run("$('undo').focus()")
        press("Enter")
        browser.wait("!busy && question && !$('bad').disabled")
        assert browser.run("document.activeElement.id") == "accept"
    finally:
        language.use("en")
        prefers(browser, "en")


def test_a_long_outline_is_drawn_to_its_end(served, browser):
    _cases, _captures, server = served
    browser.open(server.address.rstrip("/"))  # as some terminals copy it
    browser.wait("!document.getElementById('bad').disabled")
    drawn = browser.run(
        "$('draw').onclick({detail: 1}); paint = () => {};"
        "const box = view.getBoundingClientRect();"
        "for (let at = 0; at < 7999; at++) view.onpointermove({buttons: 1,"  # to and fro
        " clientX: box.left + Math.abs((at / 1000 + 1) % 2 - 1) * box.width,"
        " clientY: box.top + at / 8000 * box.height});"
        "drawing"
    )
    assert 700 < len(drawn) <= MOST_POINTS
    steps = np.hypot(*np.diff(drawn, axis=0).T)
    assert steps.max() < 4 * steps.min()  # as fine at its start as at its end
    assert drawn[0][1] < 0.5
    assert drawn[-1][1] > SIZE[1] - 1.5


def test_a_double_click_answers_to_the_picture_that_was_seen_alone(served, browser):
    cases, captures, server = served
    browser.open(server.address)
    browser.wait("!document.getElementById('bad').disabled")
    shares = "[...document.querySelectorAll('#classes span:last-child')].map(s => s.textContent)"
    assert "60" in browser.run(shares)
    browser.run(
        "const bad = document.getElementById('bad');"
        "const press = detail => bad.dispatchEvent(new MouseEvent('click', {detail}));"
        "press(1); window.late = 0;"
        "new MutationObserver(() => { if (!bad.disabled && !window.late++) press(2); })"
        ".observe(bad, {attributes: true});"
    )
    browser.wait("window.late")
    assert set(browser.run(shares)) == {""}  # of the second, which was refused
    first, second = (cases.labels.of(capture.id) for capture in captures[:2])
    assert (first.verdict, second) == ("bad picture", None)
    browser.run("press(1)")
    browser.wait("!bad.disabled && question.id === " + json.dumps(captures[2].id))
    assert cases.labels.of(captures[1].id)
    # Nor takes a double click two answers back.
    browser.run(
        "const undo = document.getElementById('undo'), again = detail =>"
        " undo.dispatchEvent(new MouseEvent('click', {detail})); again(1);"
    )
    browser.wait("!busy && !bad.disabled && question.id === " + json.dumps(captures[1].id))
    browser.run("again(2); new Promise(done => setTimeout(done, 50))")
    browser.wait("!busy")
    server._http.token = "of another run at this port"
    browser.run("press(1)")
    said = browser.wait("!busy && document.getElementById('error').textContent")
    assert "`dermedge label ask` has ended" in said
    server.close()
    browser.run("document.getElementById('error').textContent = ''; press(1)")
    assert browser.wait("!busy && document.getElementById('error').textContent") == said
    assert cases.labels.of(captures[0].id)
    assert cases.labels.of(captures[1].id) is None


def test_no_other_page_and_no_other_picture_is_served(served):
    _cases, captures, server = served
    port = urlsplit(server.address).port
    answer, page = request(server, "")
    assert answer.status == 200
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert b"http" not in page.replace(b"http-equiv", b"")
    assert request(server, "state", token="guessed")[0].status == 403
    assert request(server, "state", headers={"Host": f"evil.example:{port}"})[0].status == 403
    assert request(server, "undo", {}, {"Origin": "https://evil.example"})[0].status == 403
    answer, picture = request(server, f"picture/{captures[0].id}")
    assert (answer.headers["Content-Type"], picture[:2]) == ("image/jpeg", b"\xff\xd8")
    assert request(server, f"picture/{captures[1].id}")[0].status == 404
    long = {"id": "x" * 300_000}
    assert request(server, "answer", long)[0].status == 400


def test_the_export_is_a_data_set_of_pseudonyms(cases, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second, bad = taken(cases, "Ada Lovelace", 3)
    (never,) = taken(cases, "Bea")
    cases.labels.allow(person_of(cases, "Ada Lovelace").id, "Nurse Kim")
    cases.labels.add(never.id, NEVUS)  # she never allowed it
    with pytest.raises(Exception, match="no picture is labelled yet"):
        export(cases, tmp_path / "none")
    cases.labels.add(first.id, NEVUS)
    cases.labels.add(bad.id, replace(NEVUS, verdict="bad picture", diagnosis="", outline=()))
    killed = tmp_path / ".labels-killed"  # with pictures that are not sealed
    killed.mkdir()
    os.utime(killed, (1, 1))
    assert export(cases, tmp_path / "out") == (1, 1)
    assert not killed.exists()
    found = load("csv", tmp_path / "out")
    assert found.problems == ()
    labelled, unlabelled = sorted(found.records, key=lambda record: record.label or "~")
    assert (labelled.label, unlabelled.label, unlabelled.diagnosis) == ("nv", None, None)
    assert labelled.lesion_id == unlabelled.lesion_id
    assert (labelled.modality, unlabelled.modality) == (None, "clinical")
    mask = read_mask(labelled.mask)
    assert mask[6:15, 6:15].all()
    assert not mask[20:].any()
    text = (tmp_path / "out" / "data.csv").read_text()
    assert "Dr. Ames,dermatologist,20" in text
    for secret in ("Ada", first.id, first.lesion, second.id):
        assert secret not in text
    with open(tmp_path / "out" / "data.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    entered = [entry.what for entry in cases.audit()][-2:]
    assert entered == ["begin export labels", "done export labels"]
    assert {*entered, "failed export labels"} <= set(AUDIT_EVENTS)
    with pytest.raises(Exception, match="is there already"):
        export(cases, tmp_path / "out")
    commands._export(cases, SimpleNamespace(name="my labels"))
    wanted = "dermedge train classifier --recipe classifier --data 'csv=my labels'\n"
    assert capsys.readouterr().out.endswith(wanted)


@pytest.mark.parametrize("server", [LabelServer, Server])
def test_a_page_that_is_left_while_it_loads_ends_in_no_traceback(server, tmp_path, capsys):
    (tmp_path / "sw.js").touch()
    opened = server(tmp_path)
    for error in (ConnectionResetError, BrokenPipeError, ValueError):
        try:
            raise error
        except error:
            opened._http.handle_error(None, ("127.0.0.1", 1))
        assert ("Traceback" in capsys.readouterr().err) == (error is ValueError)
    opened.close()


@pytest.mark.parametrize("part", ["picture", "capture", "label", "person", "permission"])
def test_what_is_damaged_is_named_and_the_rest_is_asked_and_exported(cases, tmp_path, capsys, part):
    (bad,), (first, second) = taken(cases, "Ada"), taken(cases, "Bea", 2)
    for name in ("Ada", "Bea"):
        cases.labels.allow(person_of(cases, name).id, "Nurse Kim")
    for capture in (bad, first):
        cases.labels.add(capture.id, NEVUS)
    ada = person_of(cases, "Ada")
    row = {
        "picture": f"picture SET data = X'07' WHERE capture = '{bad.id}'",
        "capture": f"capture SET record = X'07' WHERE id = '{bad.id}'",
        "label": f"store SET value = X'07' WHERE name = 'label {bad.id}'",
        "person": f"person SET record = X'07' WHERE id = '{ada.id}'",
        "permission": f"store SET value = X'07' WHERE name = 'training {ada.id}'",
    }[part]
    with cases._file.writing() as connection:
        connection.execute(f"UPDATE {row}")
    found = SimpleNamespace(
        is_outlier=True, embedding=np.ones(2), width=40, height=30, triage="low",
        probabilities={"nv": 0.6, "mel": 0.4},
    )  # fmt: skip
    left = LeftOut()
    analyzer = SimpleNamespace(analyze=lambda picture, metadata: found)
    asked_about = questions(cases, analyzer, leave_out=left)
    assert [one.capture for one in asked_about] == [second.id]
    commands.say_damage(left)
    assert commands._export(cases, SimpleNamespace(name=str(tmp_path / "out"))) == 1
    lines = capsys.readouterr().err.splitlines()
    place = ada.id if part in ("person", "permission") else bad.id
    assert len(lines) == 2
    assert all(place in line and "left out" in line and "damaged" in line for line in lines)
    with open(tmp_path / "out" / "data.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["c00001", "c00002"]
    assert sorted(row["diagnosis"] for row in rows) == ["", "nv"]
    assert commands._people(cases, None) == (part in ("person", "permission"))
    assert "Bea: allowed" in capsys.readouterr().out
    with pytest.raises(StoreError, match="damaged"):  # who does not name what is left out
        export(cases, tmp_path / "other")
    assert not list(tmp_path.glob(".labels*"))


@pytest.mark.parametrize("command", [("label", "ask"), ("web", "serve")])
def test_a_port_that_cannot_be_is_wrong_use(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--port", "99999"])
    assert ended.value.code == 2
    assert "must be 0 to 65535, got 99999" in capsys.readouterr().err


@pytest.mark.parametrize("server", [LabelServer, Server])
def test_a_port_that_is_taken_is_named(server, tmp_path):
    (tmp_path / "sw.js").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken_by:
        port = taken_by.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} cannot be had .*another --port"):
            server(tmp_path, port)


def test_the_command_says_who_is_missing(cases, tmp_path, capsys):
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE)
    place = ["--home", str(tmp_path), "--passphrase-file", str(secret)]
    assert cli.main(["label", "people", *place]) == 0
    assert capsys.readouterr().out == "nobody is kept here yet\n"
    taken(cases, "Ada")
    ada = person_of(cases, "Ada")
    assert cli.main(["label", "people", "Ada", *place]) == 2
    assert "takes no name: leave out Ada" in capsys.readouterr().err
    for nobody in ([], ["--by", " ", "--role", "nurse"]):
        assert cli.main(["label", "ask", *nobody, *place]) == 2
        assert "say who you are" in capsys.readouterr().err
    # Else each answer would be refused, after all pictures were analysed.
    for name, why in (
        ("x" * 201, "is longer than 200 characters"),
        ("\udcff", "holds half of a character"),
    ):
        for action in (["ask", "--role", "nurse"], ["allow", ada.id]):
            assert cli.main(["label", *action, "--by", name, *place]) == 2
            assert f"--by: a text {why}" in capsys.readouterr().err
    wrong = (("forbid", "by"), ("allow", "role"), ("people", "port"), ("export", "bundle"))
    for action, option in (*wrong, ("forbid", "trusted-key"), ("people", "min-release")):
        value = {"by": "Kim", "role": "nurse", "port": "7777", "min-release": "3"}.get(option, "x")
        who = [] if action == "people" else [ada.id]
        assert cli.main(["label", action, *who, f"--{option}", value, *place]) == 2
        assert f"takes no --{option}: leave it out" in capsys.readouterr().err
    for words in (["allow", "Ada", "--by", "Kim"], ["forbid", "Ada"]):  # her name, not her id
        assert cli.main(["label", *words, *place]) == 2
        assert "there is no person Ada: `dermedge label people`" in capsys.readouterr().err
    assert cli.main(["label", "allow", ada.id, "--by", "Kim", *place]) == 0
    taken(cases, "\x1b[2JBea\nCleo")  # of another device's file: no escape sequence, nobody more
    with far_east() as now:
        days = now()[:10]
        assert cli.main(["label", "people", *place]) == 0
        days = {days, now()[:10]}
    listed = capsys.readouterr().out
    assert any(f"allowed {day}, entered by Kim" in listed for day in days)
    assert (len(listed.splitlines()), "\x1b" in listed) == (2, False)
    assert cli.main(["label", "forbid", ada.id, *place]) == 0
    assert cli.main(["label", "ask", "--by", "Ames", "--role", "nurse", *place]) == 0
    assert "there is nothing to ask" in capsys.readouterr().out
    with socket.create_server(("127.0.0.1", 0)) as taken_by:  # which is found at once
        ask = ["label", "ask", "--by", "Ames", "--role", "nurse"]
        assert cli.main([*ask, "--port", str(taken_by.getsockname()[1]), *place])
        assert "cannot be had" in capsys.readouterr().err
