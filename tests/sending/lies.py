"""One try of a behaviour of a lying archive: no receipt without the thing, and a line that says
what to do. Used by the tests a few times, by `proof.py` as often as one likes.
"""

from __future__ import annotations

import random

from edge_app.referral.outbox import Outbox
from edge_app.referral.sender import Sender
from edge_app.store.store import Store
from sending.mail_cases import destination, queue
from sending.receivers import DicomWebReceiver, Liar

CERTIFICATE = "wrong_certificate"


def no_wait(_low: float, _high: float) -> float:
    return 0.0


def try_lie(cases: Store, name: str, chance: random.Random, pems: dict) -> str:
    """Let an archive lie to some requests, then be honest; returns the line that was said.

    Raises AssertionError for a false receipt, for a fault that is not told, for a parcel that
    never arrives, or for one that is there twice.
    """
    if name == CERTIFICATE:
        return _wrong_certificate(cases, pems)
    id = chance.randbytes(16).hex()
    other = DicomWebReceiver()
    archive = DicomWebReceiver()
    liar, left = getattr(Liar(chance, other), name), [chance.randint(1, 3)]

    def lie(handler, content):
        if left[0] and (chance.random() < 0.7 or handler.server.site.posts > 2):
            left[0] -= 1
            return liar(handler, content)
        return None

    archive.lie = lie
    to = destination(cases, archive.endpoint())
    referral = queue(cases, to, pictures=3, id=id)
    outbox = Outbox(cases, no_wait)
    said, conflicts = "", 0
    try:
        for _round in range(12):
            Sender(cases, outbox=outbox).run()
            status = outbox.status(cases.mail.referral(id))
            bytes_of = {one.uid: one.sha256 for one in status.parcels}
            for parcel in status.parcels:
                if parcel.state == "received":
                    assert _digest(archive, parcel.uid) == bytes_of[parcel.uid], "false receipt"
            if status.state == "received":
                break
            said = str(status.referral.why or status.attempt.why or "")
            assert said, "not told"
            assert "\n" not in said
            assert f"localhost:{archive.port}" in said
            if status.referral.stopped:
                if name == "old_content":  # a person clears it up
                    conflicts += 1
                    archive.held.clear()
                cases.mail.resume(id)
            elif status.attempt.delay:  # the archive asked to wait: its time is over
                cases.mail.note_attempt(id, type(status.attempt)())
        assert outbox.status(cases.mail.referral(id)).state == "received", said
        if name != "old_content":
            assert sorted(archive.held) == sorted(bytes_of), "lost"
            assert max(archive.stores.values()) == 1, "twice"
        assert other.posts == 0, "sent to another host"
        assert said or left[0], "not told"
    finally:
        archive.hung.set()
        archive.close()
        other.close()
        cases.delete_referral(referral.id)
        cases.mail.delete_destination(to.id)
    return said


def _digest(archive: DicomWebReceiver, uid: str) -> str:
    import hashlib

    return hashlib.sha256(archive.held.get(uid, b"")).hexdigest()


def _wrong_certificate(cases: Store, pems: dict) -> str:
    archive = DicomWebReceiver(str(pems["stranger"]))
    authorities = pems["authority"].read_text().partition("-----BEGIN PRIVATE")[0]
    to = destination(cases, archive.endpoint(authorities=authorities))
    referral = queue(cases, to, id=random.randbytes(16).hex())
    try:
        Sender(cases, outbox=Outbox(cases, no_wait)).run()
        said = str(cases.mail.attempt(referral.id).why)
        assert "is not to be trusted" in said
        assert "nothing was sent" in said
        assert archive.posts == 0
        assert all(one.state != "received" for one in cases.mail.parcels(referral.id))
    finally:
        archive.close()
        cases.delete_referral(referral.id)
        cases.mail.delete_destination(to.id)
    return said
