"""What every registered carrier does; a new one is added to RECEIVERS."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import ssl
from dataclasses import replace
from types import SimpleNamespace

import pytest

from dermedge import UserError
from edge_app.i18n.language import printable
from edge_app.referral import answers
from edge_app.referral.carriers import (
    CARRIERS,
    Later,
    Refused,
    connect,
    fhir_rest,
    folder,
    http,
)
from edge_app.referral.carriers.http import retry_after
from edge_app.store.referrals import Endpoint
from sending.receivers import (
    DicomWebReceiver,
    DimseReceiver,
    FhirReceiver,
    FolderReceiver,
    request,
    split_pem,
)

A = "a" * 32
RECEIVERS = {
    "dicomweb": lambda folder: DicomWebReceiver(),
    "dicom": lambda folder: DimseReceiver(),
    "fhir": lambda folder: FhirReceiver(),
    "folder": lambda folder: FolderReceiver(folder / "stick"),
}


def test_every_carrier_is_tested():
    assert set(RECEIVERS) == set(CARRIERS)


@pytest.fixture(params=list(RECEIVERS))
def receiver(request, tmp_path):
    if request.param == "dicom":
        pytest.importorskip("pynetdicom")
    made = RECEIVERS[request.param](tmp_path)
    yield made
    with contextlib.suppress(FileNotFoundError):
        made.close()


@pytest.fixture
def link(receiver):
    made = connect(receiver.endpoint())
    yield made
    made.close()
    made.close()


def test_a_receiver_that_is_there_is_told(link):
    assert "\n" not in link.check()


def test_a_parcel_arrives_as_it_is_with_its_receipt(receiver, link):
    item = receiver.make(A, 0)
    assert item.kind in link.kinds
    receipt = link.deliver(item, again=False)
    assert receiver.holds(item)
    assert receipt.place


def test_sent_ten_times_nothing_is_there_twice(receiver, link):
    item = receiver.make(A, 0)
    link.deliver(item, again=False)
    count = receiver.count()
    for number in range(9):
        assert link.deliver(item, again=bool(number % 2)).place
    fresh = connect(receiver.endpoint())  # another process
    fresh.deliver(item, again=True)
    fresh.close()
    assert receiver.count() == count
    assert receiver.holds(item)


@pytest.mark.parametrize("again", [True, False])
def test_other_content_under_its_number_gives_no_receipt(receiver, link, again):
    item = receiver.make(A, 0)
    receiver.plant(item)
    if receiver.endpoint().carrier == "folder":  # it was ours to replace
        assert link.deliver(item, again).place
        assert receiver.holds(item)
        return
    with pytest.raises(Refused, match="other content under the same number"):
        link.deliver(item, again)
    assert not receiver.holds(item)


def test_where_nobody_answers_it_is_tried_again(receiver, link):
    item = receiver.make(A, 0)
    receiver.close()
    with pytest.raises(Later) as caught:
        link.deliver(item, again=False)
    assert "\n" not in str(caught.value)
    with pytest.raises(Later):
        link.check()


# ---------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("carrier", "address", "words"),
    [
        ("dicomweb", "http://clinic.example/dicom-web", "not encrypted"),
        ("dicomweb", "http://127.0.0.1.example/x", "not encrypted"),
        ("dicomweb", "ftp://clinic.example", "no address"),
        ("dicomweb", "https://name:secret@clinic.example", "no address"),
        ("dicomweb", "https://clinic.example:99999", "no address"),
        ("dicomweb", "https://clinic..example", "no address"),
        ("dicomweb", "https://clinic example/dicom-web", "no address"),
        ("fhir", "https://[clinic.example", "no address"),
        ("fhir", "https://clinic.example/r4?_format=json", "no address"),
        ("fhir", "http://clinic.example/fhir", "not encrypted"),
        ("dicom", "clinic.example:11112", "DICOM needs TLS"),
        ("dicom", "clinic.example", "no address of DICOM"),
        ("dicom", "clinic.example:99999", "no address of DICOM"),
        ("folder", "/media/stick", "too short"),
        ("pigeon", "roof", "no way to send"),
    ],
)
def test_addresses_that_must_not_be_used_are_refused(carrier, address, words):
    with pytest.raises(UserError, match=words):
        connect(Endpoint(carrier, address))


@pytest.mark.parametrize("token", ["\N{CYRILLIC SMALL LETTER A}b", "a\N{ZERO WIDTH SPACE}b", "a b"])
def test_a_token_that_cannot_be_sent_is_said_when_it_is_entered(token):
    with pytest.raises(UserError, match=r"token for clinic\.example .* enter it again") as caught:
        connect(Endpoint("fhir", "https://clinic.example/r4", token=token))
    assert token not in str(caught.value)


def test_a_receiver_is_believed_by_its_own_authority_alone(pems):
    authority, _key = split_pem(pems["authority"])
    stranger, _key = split_pem(pems["stranger"])
    receiver = DicomWebReceiver(str(pems["server"]))
    item = receiver.make(A, 0)
    for authorities in ("", stranger):
        link = connect(receiver.endpoint(authorities=authorities))
        with pytest.raises(Later, match=r"certificate .* is not to be trusted .*nothing was sent"):
            link.deliver(item, again=False)
        link.close()
    assert receiver.posts == 0
    link = connect(receiver.endpoint(authorities=authority))
    assert link.deliver(item, again=False).place == f"localhost:{receiver.port}"
    link.close()
    receiver.close()


def test_old_encryption_is_refused(pems):
    receiver = DicomWebReceiver(str(pems["server"]))
    context = receiver.server.socket.context
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    authority, _key = split_pem(pems["authority"])
    link = connect(receiver.endpoint(authorities=authority))
    with pytest.raises(Later, match="agree on no encryption"):
        link.deliver(receiver.make(A, 0), again=False)
    assert receiver.posts == 0
    link.close()
    receiver.close()


def test_the_address_to_which_a_server_sends_is_the_one_to_enter():
    def lie(handler, _content):
        if handler.path.endswith("/"):
            return None
        return handler.say(302, Location=f"{site.address('/fhir')}/") or True

    site = FhirReceiver(lie=lie)
    with pytest.raises(Refused) as sent_on:
        connect(site.endpoint()).deliver(site.make(A, 0), again=False)
    address = sent_on.value.words.values["other"]
    item = site.make(A, 1)
    connect(replace(site.endpoint(), address=address)).deliver(item, again=False)
    assert site.holds(item)
    site.close()


def test_of_an_archive_that_moved_the_address_to_enter_is_named():
    """Not that of the one request: all others lie beside it."""
    new = DicomWebReceiver()
    base = new.endpoint().address

    def moved(handler, _content):
        asked = handler.path[handler.path.index("/studies") :]
        return handler.say(308, Location=f"{base}{asked}") or True

    old = DicomWebReceiver(lie=moved)
    item = old.make(A, 0)
    with pytest.raises(Refused) as sent_on:
        connect(old.endpoint()).deliver(item, again=False)
    assert sent_on.value.words.values["other"] == base
    connect(replace(old.endpoint(), address=base)).deliver(item, again=False)
    for site in (old, new):
        site.close()


@pytest.mark.parametrize("how", ["redirect", "reason"])
def test_what_a_receiver_says_turns_no_terminal_about(how):
    evil = "\x1b]0;owned\x07 \x1b[31mred \x9b"

    def answer(handler, _content):
        if how == "redirect":
            return handler.say(307, Location=f"https://other.example/{evil}") or True
        issue = [{"diagnostics": f"{evil}\u202etxt"}]
        return handler.say(422, json.dumps({"issue": issue}).encode()) or True

    clinic = FhirReceiver(lie=answer)
    with pytest.raises(Refused) as refused:
        connect(clinic.endpoint()).deliver(clinic.make(A, 0), again=False)
    assert "red" in str(refused.value)
    assert printable(str(refused.value)) == str(refused.value)
    clinic.close()


def test_a_server_that_says_why_it_takes_no_request_is_quoted():
    said = {"resourceType": "OperationOutcome",
            "issue": [{"diagnostics": "Unknown resource type 'BodyStructure'"}]}  # fmt: skip
    clinic = FhirReceiver(lie=lambda handler, _: handler.say(400, json.dumps(said).encode()) or 1)
    with pytest.raises(Later, match=r"\(400\), it is tried again: Unknown .* 'BodyStructure'"):
        connect(clinic.endpoint()).deliver(clinic.make(A, 0), again=False)
    clinic.close()


def test_a_request_with_large_pictures_in_it_is_received(monkeypatch):
    monkeypatch.setattr(answers, "BYTES", 1000)
    clinic = FhirReceiver()
    item = request(A, 0, "x" * 2000)
    assert len(connect(clinic.endpoint()).deliver(item, again=False).references) == 3
    clinic.close()


def test_a_server_that_does_not_say_where_what_it_had_before_is_is_asked():
    clinic = FhirReceiver()
    clinic.locates = False  # as Azure
    first, again = (
        connect(clinic.endpoint()).deliver(clinic.make(A, 0), again=bool(n)) for n in range(2)
    )
    assert again.references == first.references
    clinic.held["Patient/99"] = clinic.held[first.references[0]] | {"id": "99"}
    with pytest.raises(Later) as several:
        connect(clinic.endpoint()).deliver(clinic.make(A, 0), again=True)
    assert several.value.code == "unlisted"
    clinic.close()


@pytest.mark.parametrize(
    ("theirs", "same"),
    [
        ("2026-11-29T07:00:00Z", True),
        ("2026-11-29T08:00:00.000+01:00", True),
        ("2026-11-29T08:00:00Z", False),
        ("2026-11-29", False),
    ],
)
def test_a_server_that_writes_times_in_its_own_way_has_what_was_sent(theirs, same):
    ours = {"resourceType": "Observation", "effectiveDateTime": "2026-11-29T08:00:00+01:00"}
    assert fhir_rest._holds(ours | {"effectiveDateTime": theirs}, ours, {}) is same


@pytest.mark.parametrize("slow", ["way", "answer"])
def test_a_bad_line_may_take_its_time_an_answer_may_not(monkeypatch, slow):
    now, clinic = [0.0], FhirReceiver()
    monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def pass_time(*_args):
        now[0] += 2 * http.WHOLE

    if slow == "way":
        clinic.lie = pass_time
    else:
        monkeypatch.setattr(http, "PIECE", 1)
        monkeypatch.setattr(http, "bytearray", lambda: pass_time() or bytearray(), raising=False)
    link = connect(clinic.endpoint())
    if slow == "way":
        assert link.deliver(clinic.make(A, 0), again=False).place
    else:
        with pytest.raises(Later, match="does not answer in time"):
            link.deliver(clinic.make(A, 0), again=False)
    link.close()
    clinic.close()


@pytest.mark.parametrize("way", ["dimse", "web"])
@pytest.mark.parametrize("who", ["client", "stranger", ""])
def test_tls_lets_in_who_shows_a_certificate(pems, who, way):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pems["server"])
    context.load_verify_locations(pems["authority"])
    context.verify_mode = ssl.CERT_REQUIRED
    if way == "dimse":
        pytest.importorskip("pynetdicom")
        receiver = DimseReceiver(context)
    else:
        receiver = DicomWebReceiver(context=context)
    authority, _key = split_pem(pems["authority"])
    own = dict(zip(("certificate", "key"), split_pem(pems[who]), strict=True)) if who else {}
    link = connect(receiver.endpoint(authorities=authority, **own))
    item = receiver.make(A, 0)
    if who == "client":
        assert link.deliver(item, again=False).place
        assert receiver.holds(item)
    else:
        fault = "does not take the certificate of this device .unknown ca"
        fault = fault if who else r"certificate required\).*whether this device needs a certificate"
        with pytest.raises(Later, match=fault):
            link.deliver(item, again=False)
        assert receiver.held == {}
    receiver.close()


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("400 The SSL certificate error", "The SSL certificate error$"),  # as nginx says it
        ("400 Bad Request", "check the address"),
        ("\n  400 Bad\n  Request", "check the address"),
    ],
)
def test_what_a_proxy_says_of_a_certificate_is_said(title, said):
    page = f"<html>\r\n<head><title>{title}</title></head>".encode()
    site = DicomWebReceiver(lie=lambda handler, _: handler.say(400, page, "text/html") or True)
    with pytest.raises(Later, match=said):
        connect(site.endpoint()).deliver(site.make(A, 0), again=False)
    site.close()


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("PKCS8", "sealed by a passphrase: enter one without"),
        ("TraditionalOpenSSL", "sealed by a passphrase: enter one without"),
        ("other", "is not that of its certificate"),
        ("none", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(pems, form, said):
    from cryptography.hazmat.primitives import serialization

    certificate, key = split_pem(pems["client"])
    if form == "other":
        key = split_pem(pems["stranger"])[1]
    elif form == "none":
        key = "no key"
    else:
        secret = serialization.load_pem_private_key(key.encode(), None)
        key = secret.private_bytes(
            serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form),
            serialization.BestAvailableEncryption(b"abcd"),
        ).decode()  # fmt: skip
    with pytest.raises(UserError, match=said):
        connect(Endpoint("fhir", "https://c.example", certificate=certificate, key=key))


@pytest.mark.parametrize(
    ("takes", "said"), [(2, "nothing would show that a picture arrived"), (1, "kind of picture")]
)
def test_a_node_that_shows_or_takes_nothing_gets_nothing(takes, said):
    pytest.importorskip("pynetdicom")
    receiver = DimseReceiver(get=False)
    receiver._server.contexts = receiver._server.contexts[:takes]  # Verification first
    with pytest.raises(Refused, match=said):
        connect(receiver.endpoint()).deliver(receiver.make(A, 0), again=False)
    assert receiver.held == {}
    receiver.close()


@pytest.mark.parametrize(("status", "kind"), [(0xA700, Later), (0x0110, Later), (0xC001, Refused)])
def test_what_a_node_says_is_heeded(status, kind):
    pytest.importorskip("pynetdicom")
    receiver = DimseReceiver(status=status)
    with pytest.raises(kind, match=f"{status:04X}"):
        connect(receiver.endpoint()).deliver(receiver.make(A, 0), again=False)
    receiver.close()


def test_a_node_that_ends_the_connection_may_not_let_this_device_fetch(monkeypatch):
    pytest.importorskip("pynetdicom")

    def aborts(_self, event):
        event.assoc.abort()
        yield 0

    monkeypatch.setattr(DimseReceiver, "_get", aborts)
    receiver = DimseReceiver()
    with pytest.raises(Later, match=r"whether this device may store and fetch there"):
        connect(receiver.endpoint()).deliver(receiver.make(A, 0), again=False)
    receiver.close()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("require_called_aet", "is not called ARCHIVE: enter its AE title"),
     ("require_calling_aet", "no device in that calls itself DERMEDGE")],
)  # fmt: skip
def test_which_title_a_node_does_not_take_is_said(wrong, said):
    pytest.importorskip("pynetdicom")
    receiver = DimseReceiver()
    node = receiver._server.ae
    receiver._server.ae_title = "PACS"
    setattr(node, wrong, ["PACS"] if wrong == "require_calling_aet" else True)
    with pytest.raises(Refused, match=said):
        connect(receiver.endpoint()).check()
    receiver.close()


def test_a_node_with_too_many_connections_is_asked_later(monkeypatch):
    pytest.importorskip("pynetdicom")
    receiver = DimseReceiver()
    monkeypatch.setattr(receiver._server.ae, "_maximum_associations", 0)
    with pytest.raises(Later, match="is busy") as caught:
        connect(receiver.endpoint()).deliver(receiver.make(A, 0), again=False)
    assert caught.value.down
    receiver.close()


def test_a_key_of_this_device_that_is_none_is_told():
    with pytest.raises(UserError, match="enter them again"):
        connect(Endpoint("dicomweb", "https://clinic.example", certificate="x", key="y"))
    with pytest.raises(UserError, match="enter it again"):
        connect(Endpoint("dicomweb", "https://clinic.example", authorities="x"))


@pytest.mark.parametrize(
    ("value", "seconds"), [("120", 120), ("", 0), ("soon", 0), ("-5", 0),
                           ("Wed, 21 Oct 2015 07:28:00 GMT", 0)]
)  # fmt: skip
def test_how_long_a_receiver_asks_to_wait(value, seconds):
    assert retry_after(value) == seconds


@pytest.mark.parametrize("by", ["fstab", "unit", "nothing"])
def test_the_empty_folder_of_a_stick_is_no_stick(tmp_path, monkeypatch, by):
    receiver = FolderReceiver(tmp_path / "my stick")
    place = str(receiver.folder).replace(" ", r"\040")
    table, mounted = tmp_path / "fstab", tmp_path / "mounts"
    stick = f"LABEL=S {place} vfat noauto,user 0 0\n" if by == "fstab" else ""
    table.write_text(f"# sticks\nUUID=1 / ext4\n{stick}")
    if by == "nothing":  # as /media/usb0 of usbmount, which stays
        monkeypatch.setattr(folder, "STICKS", (tmp_path,))
    if by == "unit":
        text = f"[Mount]\nWhat=/dev/disk/by-label/S\nWhere={receiver.folder}\n"
        (tmp_path / "my.mount").write_text(text)
    mounted.write_text("/dev/sda1 / ext4 rw 0 0\n")
    monkeypatch.setattr(folder, "FSTAB", table)
    monkeypatch.setattr(folder, "UNITS", (tmp_path, tmp_path / "none"))
    monkeypatch.setattr(folder, "MOUNTS", mounted)
    link = connect(receiver.endpoint())
    for ask in (link.check, lambda: link.deliver(receiver.make(A, 0), again=False)):
        with pytest.raises(Later, match="put the stick in"):
            ask()
    assert receiver.count() == 0
    mounted.write_text(f"/dev/sda1 / ext4 rw 0 0\n/dev/sdb1 {place} vfat rw 0 0\n")
    link.deliver(receiver.make(A, 0), again=False)
    assert receiver.count() == 1
    link.close()


def test_a_folder_that_cannot_be_written_is_not_said_to_be_there(tmp_path, monkeypatch):
    receiver = FolderReceiver(tmp_path / "stick")
    link = connect(receiver.endpoint())
    assert "MiB free" in link.check()
    assert not list(receiver.folder.iterdir())

    def fails(*_args, **_values):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as locked:
        locked.setattr(os, "open", fails)
        with pytest.raises(Later, match="Read-only file system"):
            link.check()


@pytest.mark.parametrize("asked", ["is_dir", "exists"])
def test_a_stick_that_is_pulled_out_half_way_is_told(tmp_path, monkeypatch, asked):
    receiver = FolderReceiver(tmp_path / "stick")
    link = connect(receiver.endpoint())

    def fails(_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(folder.Path, asked, fails)
    with pytest.raises(Later, match="Input/output error") as raised:
        link.deliver(receiver.make(A, 0), again=False)
    assert raised.value.down


def test_what_a_stick_is_said_to_hold_stays_when_it_is_pulled_out(tmp_path, monkeypatch):
    receiver = FolderReceiver(tmp_path / "stick")
    link, synced, fsync = connect(receiver.endpoint()), set(), os.fsync

    def noted(handle):
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    link.deliver(receiver.make(A, 0), again=False)
    link.close()
    assert {each.stat().st_ino for each in (receiver.folder, *receiver.folder.rglob("*"))} <= synced


def test_a_stick_shows_nothing_of_what_is_on_it(tmp_path):
    receiver = FolderReceiver(tmp_path / "stick")
    item = receiver.make(A, 0)
    link = connect(receiver.endpoint())
    link.deliver(item, again=False)
    link.close()
    (path,) = receiver.folder.rglob("*.dermparcel")
    data = path.read_bytes()
    assert b"CODE" not in data
    assert item.uid.encode() not in data
    for at in (10, 20, 60, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(UserError):
            receiver.count()
