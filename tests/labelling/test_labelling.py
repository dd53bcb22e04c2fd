"""What is asked, saved and exported for training."""

from __future__ import annotations

import contextlib
import csv
import http.client
import json
import socket
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from analyses import analysis
from store.store_cases import PASSPHRASE, QUICK

from dermedge import UserError, cli
from dermedge.data import load
from dermedge.image.read import read_mask
from edge_app.labelling import commands
from edge_app.labelling.export import export
from edge_app.labelling.queue import Question, allowed, questions
from edge_app.labelling.server import LabelServer, Sitting
from edge_app.presentation.comparison import AUDIT_EVENTS
from edge_app.qa import chromium
from edge_app.store import derivation
from edge_app.store.labels import MOST_POINTS, Label
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
    assert (answer.status, "reload" in json.loads(said)["error"]) == (409, True)
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
    assert request(server, "answer", answer)[0].status == 409
    state = json.loads(request(server, "state")[1])
    left = [] if how == "forbidden" else captures[1:]
    assert (state["done"], state["count"]) == (0, len(left))
    assert (state["question"] or {}).get("id") == (left[0].id if left else None)
    assert getattr(cases.labels.of(captures[0].id), "diagnosis", "") == (
        "nv" if how == "labelled" else ""
    )


@pytest.mark.skipif(chromium.program() is None, reason="needs Chromium")
def test_a_double_click_answers_to_the_picture_that_was_seen_alone(served):
    cases, captures, server = served
    browser = chromium.Chromium()
    try:
        browser.open(server.address)
        browser.wait("!document.getElementById('bad').disabled")
        shares = (
            "[...document.querySelectorAll('#classes span:last-child')].map(s => s.textContent)"
        )
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
    finally:
        browser.close()
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
    assert export(cases, tmp_path / "out") == (1, 1)
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


@pytest.mark.parametrize("part", ["picture", "capture", "label"])
def test_what_is_damaged_is_named_and_the_rest_is_asked_and_exported(cases, tmp_path, capsys, part):
    (bad,), (first, second) = taken(cases, "Ada"), taken(cases, "Bea", 2)
    for name in ("Ada", "Bea"):
        cases.labels.allow(person_of(cases, name).id, "Nurse Kim")
    for capture in (bad, first):
        cases.labels.add(capture.id, NEVUS)
    row = {
        "picture": f"picture SET data = X'07' WHERE capture = '{bad.id}'",
        "capture": f"capture SET record = X'07' WHERE id = '{bad.id}'",
        "label": f"store SET value = X'07' WHERE name = 'label {bad.id}'",
    }[part]
    with cases._file.writing() as connection:
        connection.execute(f"UPDATE {row}")
    found = SimpleNamespace(
        is_outlier=True, embedding=np.ones(2), width=40, height=30, triage="low",
        probabilities={"nv": 0.6, "mel": 0.4},
    )  # fmt: skip
    left = commands.LeftOut()
    analyzer = SimpleNamespace(analyze=lambda picture: found)
    asked_about = questions(cases, analyzer, leave_out=left)
    assert [one.capture for one in asked_about] == [second.id]
    left.say()
    assert commands._export(cases, SimpleNamespace(name=str(tmp_path / "out"))) == 1
    lines = capsys.readouterr().err.splitlines()
    place = bad.lesion if part == "capture" else bad.id
    assert len(lines) == 2
    assert all(place in line and "left out" in line and "damaged" in line for line in lines)
    with open(tmp_path / "out" / "data.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["c00001", "c00002"]
    assert sorted(row["diagnosis"] for row in rows) == ["", "nv"]
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
    taken(cases, "Ada")
    ada = person_of(cases, "Ada")
    secret = tmp_path / "secret"
    secret.write_text(PASSPHRASE)
    place = ["--home", str(tmp_path), "--passphrase-file", str(secret)]
    assert cli.main(["label", "people", "Ada", *place]) == 2
    assert "takes no name: leave out Ada" in capsys.readouterr().err
    for nobody in ([], ["--by", " ", "--role", "nurse"]):
        assert cli.main(["label", "ask", *nobody, *place]) == 2
        assert "say who you are" in capsys.readouterr().err
    for action, option in (("forbid", "by"), ("allow", "role"), ("people", "port")):
        value = {"by": "Kim", "role": "nurse", "port": "7777"}[option]
        who = [] if action == "people" else [ada.id]
        assert cli.main(["label", action, *who, f"--{option}", value, *place]) == 2
        assert f"takes no --{option}: leave it out" in capsys.readouterr().err
    assert cli.main(["label", "allow", ada.id, "--by", "Kim", *place]) == 0
    assert cli.main(["label", "people", *place]) == 0
    assert "entered by Kim" in capsys.readouterr().out
    assert cli.main(["label", "forbid", ada.id, *place]) == 0
    assert cli.main(["label", "ask", "--by", "Ames", "--role", "nurse", *place]) == 0
    assert "there is nothing to ask" in capsys.readouterr().out
