"""`dermedge send`: what an operator types, and what comes of it."""

from __future__ import annotations

import io
import json
import re
import shutil
import ssl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from commands import call
from store.store_cases import FOREIGN, PASSPHRASE
from zones import far_east

from dermedge import UserError, cli
from edge_app.referral.alone import alone
from edge_app.referral.carriers import connect
from edge_app.referral.collector import Collected
from edge_app.referral.commands import SEND, _say_answers
from edge_app.store import derivation
from edge_app.store.referrals import Destination, Endpoint, StoredAnswer
from edge_app.store.store import Store
from sending.mail_cases import queue, state
from sending.receivers import (
    DicomWebReceiver,
    FhirReceiver,
    FolderReceiver,
    picture,
    split_pem,
)

A, B = "a" * 32, "b" * 32


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    Store.create(folder / "cases.db", PASSPHRASE).close()
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    return folder


@pytest.fixture
def send(home, monkeypatch):
    def send(*words: str, typed: str = "") -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        secret = home.parent / "passphrase"
        return call(SEND, *words, "--home", home, "--passphrase-file", secret)

    return send


def opened(home) -> Store:
    return Store.open(home / "cases.db", PASSPHRASE)


def test_a_destination_is_added_checked_used_and_removed(home, send, capsys):
    archive, clinic = DicomWebReceiver(), FhirReceiver()
    urls = ("--dicomweb", archive.endpoint().address, "--fhir", clinic.endpoint().address)
    assert send("add", "Clinic", *urls, "--user", "kiosk", typed="secret\n") == 0
    with pytest.raises(UserError, match="Clinic already"):
        send("add", "Clinic", *urls)
    assert send("check") == 0
    assert capsys.readouterr().out.count(" ok ") == 2
    cases = opened(home)
    (to,) = cases.mail.destinations()
    assert (to.dicom.user, to.dicom.password) == ("kiosk", "secret")
    queue(cases, to, fhir=True)
    cases.close()
    assert send("list") == 0
    assert "waits to be sent, 0 of 4 parcels received" in capsys.readouterr().out
    with pytest.raises(UserError, match="referrals still wait"):
        send("remove", "Clinic")
    assert send("--once") == 0
    assert "4 parcels received" in capsys.readouterr().out
    send("list")
    assert "received, 4 of 4 parcels received" in capsys.readouterr().out
    assert send("answers") == 0
    archive.close()
    clinic.close()
    assert send("check") == 1
    assert "FAULT  nobody answers at localhost" in capsys.readouterr().out
    assert send("remove", "Clinic") == 0


@pytest.mark.parametrize(("user", "password"), [((), ""), (("--user", "kiosk"), "secret")])
def test_the_passphrase_of_a_stick_goes_to_no_server(home, send, tmp_path, user, password):
    stick = FolderReceiver(tmp_path / "stick")
    typed = f"{password}\n" * bool(user) + f"{stick.passphrase}\n"
    where = ("--folder", str(stick.folder), "--fhir", "https://c.example")
    assert send("add", "Both", *where, *user, typed=typed) == 0
    cases = opened(home)
    (to,) = cases.mail.destinations()
    assert (to.dicom.password, to.fhir.password) == (stick.passphrase, password)
    cases.close()


def test_what_was_stopped_says_why_and_is_sent_again(home, send, capsys):
    archive = DicomWebReceiver(lie=lambda handler, _: handler.say(401) or True)
    send("add", "Clinic", "--dicomweb", archive.endpoint().address)
    cases = opened(home)
    queue(cases, cases.mail.destinations()[0])
    cases.close()
    assert send("--once") == 1
    send("list")
    assert "does not know this device (401): check the name" in capsys.readouterr().out
    archive.lie = None
    assert send("again", "--referral", "aaaa") == 0
    assert send("--once") == 0
    archive.close()
    cases = opened(home)
    assert state(cases) == "received"
    cases.close()
    with pytest.raises(UserError, match="all of this referral was received"):
        send("again", "--referral", "aaaa")


def test_who_moves_a_referral_reads_whose_code_it_carries(home, send, capsys):
    for name in ("Clinic", "Hospital"):
        send("add", name, "--dicomweb", "https://clinic.example")
    cases = opened(home)
    queue(cases, cases.mail.destinations()[0])
    cases.close()
    send("again", "--referral", A, "--to", "Clinic")
    send("again", "--referral", A, "--to", "Hospital")
    stays, moved = capsys.readouterr().out.splitlines()[-2:]
    assert stays == "it is sent again"
    assert "to Hospital, under the code of the person that was made for Clinic" in moved


def test_names_of_an_imported_file_are_shown_without_escape_sequences(home, send, capsys):
    cases = opened(home)
    forged = "Clinic\n\x1b[2Jb"
    stick = Endpoint("folder", "/nowhere", password="four words that go")
    queue(cases, cases.mail.add_destination(Destination("", forged, stick)))
    cases.mail.add_answer(StoredAnswer("", A, "1.2", "1", "", author=forged, issued="\x1b[2J"))
    late = StoredAnswer("", A, "1.3", "1", "", author="Bea", issued="2026-11-30T22:00:00Z")
    cases.mail.add_answer(late)
    cases.close()
    with far_east():
        assert send("list") == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert len(said.splitlines()) == 3
    assert said.endswith("answer of Bea, 2026-12-01\n")
    send("add", "Other", "--dicomweb", "https://other.example")
    capsys.readouterr()
    assert send("again", "--referral", A, "--to", "Other") == 0
    said = capsys.readouterr().out
    assert "made for Clinic" in said
    assert ("\x1b" in said, len(said.splitlines())) == (False, 1)


def test_what_an_imported_file_says_was_received_is_not_to_be_sent(home, send, capsys, tmp_path):
    archive = DicomWebReceiver()
    send("add", "Clinic", "--dicomweb", archive.endpoint().address)
    cases = opened(home)
    queue(cases, cases.mail.destinations()[0])
    cases.close()
    assert send("--once") == 0
    archive.close()
    cases = opened(home)
    cases.export(tmp_path / "file.dermcases", FOREIGN)
    cases.delete_person(cases.people()[0].id)
    cases.merge(tmp_path / "file.dermcases", FOREIGN)
    cases.close()
    capsys.readouterr()
    assert send("list") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("received, 3 of 3 parcels received")


def test_of_two_receivers_of_one_name_none_is_taken_by_chance(home, send):
    send("add", "Clinic", "--dicomweb", "https://old.example")
    cases = opened(home)
    (old,) = cases.mail.destinations()
    new = replace(old, dicom=replace(old.dicom, address="https://new.example"))
    new = cases.mail.add_destination(new)  # as by the app
    queue(cases, old)
    cases.close()
    for words in (("remove", "Clinic"), ("again", "--referral", A, "--to", "Clinic")):
        with pytest.raises(UserError, match="several destinations are called Clinic") as caught:
            send(*words)
        assert f"{new.id} (https://new.example)" in str(caught.value)
    assert send("again", "--referral", A, "--to", new.id) == 0
    assert send("remove", old.id) == 0
    cases = opened(home)
    assert cases.mail.referral(A).destination == new.id
    assert cases.mail.destinations() == [new]
    cases.close()


def test_parcels_are_written_as_files_for_eyes_and_validators(home, send, tmp_path, capsys):
    send("add", "Clinic", "--dicomweb", "https://clinic.example", "--fhir", "https://c.example")
    cases = opened(home)
    queue(cases, cases.mail.destinations()[0], fhir=True)
    cases.mail.receive(cases.mail.parcels(A)[0], "clinic.example")  # its bytes are here still
    cases.close()
    assert send("export", str(tmp_path / "out"), "--referral", "a") == 0
    folder = tmp_path / "out" / A
    assert sorted(file.name for file in folder.iterdir()) == [
        "000.dcm", "001.dcm", "002.dcm", "003.json",
    ]  # fmt: skip
    assert (folder / "000.dcm").read_bytes() == picture(A, 0).data
    assert json.loads((folder / "003.json").read_text())["type"] == "transaction"
    assert "not encrypted" in capsys.readouterr().out
    with pytest.raises(UserError, match="is there already"):
        send("export", str(tmp_path / "out"), "--referral", "a")
    cases = opened(home)
    assert [one.what for one in cases.audit()[-2:]] == ["begin export", "failed export"]
    cases.close()


def test_a_stick_is_written_and_opened(home, send, tmp_path, capsys):
    stick = FolderReceiver(tmp_path / "stick")
    with pytest.raises(UserError, match="too short"):
        send("add", "Stick", "--folder", str(stick.folder), typed="short\n")
    send("add", "Stick", "--folder", str(stick.folder), typed=stick.passphrase + "\n")
    cases = opened(home)
    queue(cases, cases.mail.destinations()[0], fhir=True)
    cases.close()
    assert send("--once") == 0
    secret = tmp_path / "agreed"
    secret.write_text(stick.passphrase)
    words = ("open", stick.folder, tmp_path / "plain", "--passphrase-file", secret)
    assert call(SEND, *words) == 0
    assert (tmp_path / "plain" / A / "002.dcm").read_bytes() == picture(A, 2).data
    with pytest.raises(UserError, match="no sealed files"):
        call(SEND, "open", home, tmp_path / "plain")


def test_a_stick_that_went_through_other_hands_is_opened_by_what_is_sealed(
    tmp_path, capsys, monkeypatch
):
    stick, mails = FolderReceiver(tmp_path / "stick"), tmp_path / "mails"
    link = connect(stick.endpoint())
    for referral in (A, B):
        for number in range(2):
            link.deliver(picture(referral, number), again=False)
        # Whoever carries them puts them into folders of other names.
        (mails / referral[0]).mkdir(parents=True)
        (stick.folder / referral).rename(mails / referral[0] / "files")
    link.close()
    shutil.copytree(mails / "a", mails / "copy of a")
    cut = mails / "b" / "files" / "001.dermparcel"
    cut.write_bytes(cut.read_bytes()[:200])
    (cut.parent / "._000.dermparcel").write_bytes(b"\0\5\x16\7")  # a Mac's
    (mails / "z.dermparcel").mkdir()  # stands for what a bad stick does not give
    secret = tmp_path / "agreed"
    secret.write_text(stick.passphrase)
    words = ("open", mails, tmp_path / "plain", "--passphrase-file", secret)
    unwrap, made = derivation.unwrap, []
    monkeypatch.setattr(derivation, "unwrap", lambda *it: made.append(it) or unwrap(*it))
    assert call(SEND, *words) == 1
    assert len(made) == 1  # all of a run share a key, which takes a moment
    out, error = capsys.readouterr()
    assert out.startswith("3 files in ")
    damaged, unread = error.splitlines()
    assert damaged == f"dermedge: {cut} is no parcel of dermedge, or damaged"
    assert "Is a directory" in unread
    for name, number in ((A, 0), (A, 1), (B, 0)):
        plain = tmp_path / "plain" / name / f"{number:03}.dcm"
        assert plain.read_bytes() == picture(name, number).data
        assert plain.stat().st_mode & 0o077 == 0
    with pytest.raises(UserError, match="is there already"):
        call(SEND, *words)
    secret.write_text("another that nobody agreed on")
    with pytest.raises(UserError, match="passphrase"):
        call(SEND, "open", mails, tmp_path / "none", "--passphrase-file", secret)
    assert len(made) == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say what to do"),
        (("list", "--once"), "say what to do"),
        (("add",), "needs NAME"),
        (("add", "C", "--dicomweb", "http://clinic.example"), "not encrypted"),
        (("add", "C"), "needs an address"),
        (("add", "C", "--dicomweb", "https://a", "--dicom", "h:1"), "one way"),
        (("remove", "C"), "there is no destination C"),
        (("check", "C"), "takes no name: leave out C"),
        (("export", "DIR"), "say --referral"),
        (("again", "--referral", "zz"), "there is no referral zz"),
        (("--once", "--referral", "zz"), "takes no --referral"),
        (("check", "--to", "C"), "takes no --to"),
        (("remove", "C", "--fhir", "https://a"), "takes no --fhir"),
        (("--systemd",), "takes no --passphrase-file"),
        (("add", "C", "--fhir", "https://a", "--key", "k"), "takes no --key without --certif"),
        (("add", "C", "--fhir", "https://a", "--user", "u", "--token"), "no --user beside"),
        (("add", "C", "--dicomweb", "https://a", "--calling", "X"), "takes no --calling"),
        (("add", "C", "--dicom", "localhost:104", "--token"), "no --token for these"),
        (("add", "C", "--folder", "here", "--ca", "ca.pem"), "takes no --ca"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(home, send, words, said):
    with pytest.raises(UserError, match=said) as caught:
        send(*words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["pkcs12", "notepad", "der"])
def test_a_certificate_is_taken_with_what_a_tool_wrote_around_it(home, send, pems, form):
    text, _key = split_pem(pems["authority"])
    around = {
        "pkcs12": f"Bag Attributes\n    friendlyName: Praxis Süd\n{text}".encode(),
        "notepad": text.replace("\n", "\r\n").encode("utf-8-sig"),
        "der": ssl.PEM_cert_to_DER_cert(text),
    }
    (home / "ca.pem").write_bytes(around[form])
    words = ("add", "C", "--fhir", "https://clinic.example/r4", "--ca", home / "ca.pem")
    if form == "der":
        with pytest.raises(UserError, match="cannot be read as PEM"):
            send(*words)
        return
    assert send(*words) == 0
    (kept,) = opened(home).mail.destinations()
    assert kept.fhir.authorities.split() == text.split()


@pytest.mark.parametrize("words", [("list",), ("open", "{home}", "{home}/plain")])
def test_no_passphrase_is_not_a_wrong_one(home, words, capsys):
    """A service whose credential is not there said that the passphrase is wrong."""
    (home / "000.dermparcel").touch()
    (home / "empty").write_text("\n")
    words = [word.format(home=home) for word in words]
    place = [] if words[0] == "open" else ["--home", str(home)]
    for name, said in (("empty", "there is no passphrase in {}"), ("none", "{}: No such file")):
        path = str(home / name)
        assert cli.main(["send", *words, *place, "--passphrase-file", path]) == 2
        assert f"dermedge: {said.format(path)}" in capsys.readouterr().err


def test_what_is_not_there_is_named(home, send, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (("open", "nowhere", "plain"), ("add", "C", "--fhir", "https://a", "--ca", "no")):
        with pytest.raises(FileNotFoundError, match="nowhere" if words[0] == "open" else "'no'"):
            send(*words)


def test_a_list_of_nothing_says_so(send, capsys):
    assert send("list") == 0
    assert capsys.readouterr().out == "nothing was sent yet\n"


def test_two_senders_at_once_are_told(home, send):
    with alone(home / "cases.db"), pytest.raises(UserError, match="another dermedge is sending"):
        send("--once")


def test_a_passphrase_that_windows_saved_opens_the_cases(home, send):
    (home.parent / "passphrase").write_bytes(b"\xef\xbb\xbf" + PASSPHRASE.encode() + b"\r\n")
    assert send("list") == 0
    (home.parent / "passphrase").write_bytes(b"\xff\xfe" + PASSPHRASE.encode("utf-16-le"))
    with pytest.raises(UserError, match="not UTF-8"):
        send("list")


def test_where_there_are_no_cases_that_is_told(tmp_path):
    with pytest.raises(UserError, match="no cases"):
        call(SEND, "list", "--home", tmp_path)


def test_the_unit_sends_for_a_kiosk_that_has_no_network(capsys):
    assert call(SEND, "--systemd", "--home", "/var/lib/derm edge") == 0
    text = capsys.readouterr().out
    assert '"send" "--watch" "--home" "/var/lib/derm edge"' in text
    assert "--passphrase-file %d/passphrase" in text
    assert 'ReadWritePaths="/var/lib/derm edge"' in text
    assert "AF_INET6" in text


def test_the_unit_may_write_to_the_stick_that_it_is_told_of(capsys):
    assert call(SEND, "--systemd", "--folder", "/media/derm stick") == 0
    assert 'ReadWritePaths="-/media/derm stick"' in capsys.readouterr().out
    with pytest.raises(UserError, match="a service does not see /tmp/stick"):
        call(SEND, "--systemd", "--folder", "/tmp/stick")


def test_the_service_says_once_who_cannot_be_asked_for_answers(capsys):
    failed = Collected(failed=[UserError("clinic.example does not know this device (401)")])
    known = _say_answers(failed, [])
    assert "does not know this device (401)" in capsys.readouterr().err
    assert _say_answers(failed, known) == known
    assert capsys.readouterr() == ("", "")
    _say_answers(failed, _say_answers(Collected(), known))
    assert "(401)" in capsys.readouterr().err


BLOCKED = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(name, name=name)

blocked, words = set(sys.argv[1].split()), sys.argv[2:]
sys.meta_path.insert(0, Missing())
from dermedge.cli import main

sys.exit(main(["send", "check", *words]) + main(["send", "answers", *words]))
"""
IMPORTED = {
    "kivy": "kivy", "fpdf2": "fpdf", "uharfbuzz": "uharfbuzz", "python-bidi": "bidi",
    "arabic-reshaper": "arabic_reshaper", "cryptography": "cryptography", "babel": "babel",
}  # fmt: skip


def test_the_extra_send_is_enough_to_send(home):
    tomllib = pytest.importorskip("tomllib")
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    app, own = ({re.split("[>=]", it)[0] for it in extras[name]} for name in ("app", "send"))
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED, " ".join(IMPORTED[name] for name in app - own),
         "--home", home, "--passphrase-file", home.parent / "passphrase"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert "0 new" in run.stdout
    assert SEND.extra == "send"  # what is missing is said to come with it
