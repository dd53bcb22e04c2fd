"""What makes sense of what is sent and answered; a part of `validation`."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from edge_app.i18n.language import N_
from edge_app.store.basics import stamp, text
from edge_app.store.referrals import (
    PARCEL_KINDS,
    RECEIVED,
    STATES,
    Destination,
    Endpoint,
    StoredAnswer,
    StoredParcel,
    StoredReferral,
)

NAME, ADDRESS, IDENTIFIER = 200, 2000, 64  # characters
PEM = 100_000  # characters
FORM = 200_000  # bytes of its JSON
PICTURES = 100  # of one referral
ANSWER = 100_000  # characters
DOCUMENT = 5 * 2**20  # bytes of an answer's PDF
MAX_PARCEL = 2**29  # bytes
ID = re.compile("[0-9a-f]{32}")
SYSTEM = re.compile(r"urn:(oid|uuid):[0-9a-fA-F.-]+|https?://[!-~]+")
TITLE = re.compile(r"[ -\[\]-~]{0,16}")  # AE title: PS3.5, 6.2


def _destination(item: Destination, _now: str, _seen: str) -> Iterator[str]:
    yield from text(item.name, NAME, N_("a destination needs a name"))
    if item.dicom is None and item.fhir is None:
        yield N_("a destination needs an address")
    for endpoint in (item.dicom, item.fhir):
        if endpoint is not None:
            yield from _endpoint(endpoint)
    yield from text(item.system, NAME)
    if item.system and not (isinstance(item.system, str) and SYSTEM.fullmatch(item.system)):
        yield N_("the system of a number is a URI, as urn:oid:1.2.3 or https://clinic.example/id")
    if type(item.lossy) is not bool:
        yield N_("it is unknown how pictures are to be sent")


def _endpoint(item: Endpoint) -> Iterator[str]:
    if not isinstance(item, Endpoint):
        yield N_("a destination needs an address")
        return
    yield from text(item.carrier, NAME, N_("a destination needs an address"))
    yield from text(item.address, ADDRESS, N_("a destination needs an address"))
    for part in (item.user, item.password, item.token):
        yield from text(part, ADDRESS)
    for part in (item.authorities, item.certificate, item.key):
        yield from text(part, PEM)
    for part in (item.called, item.calling):
        if not isinstance(part, str) or not TITLE.fullmatch(part):
            yield N_("an AE title has at most 16 characters")


def _referral(item: StoredReferral, _now: str, _seen: str) -> Iterator[str]:
    for part in (item.study_uid, item.patient_id):
        yield from text(part, IDENTIFIER, N_("a referral lacks a number"))
    yield from text(item.receiver, NAME, N_("a referral lacks its receiver"))
    yield from text(item.consent, NAME)
    if not isinstance(item.destination, str) or not ID.fullmatch(item.destination):
        yield N_("a referral lacks its receiver")
    pictures = item.captures
    if not isinstance(pictures, tuple) or not 0 < len(pictures) <= PICTURES or not all(
        isinstance(one, str) and ID.fullmatch(one) for one in pictures
    ):  # fmt: skip
        yield N_("a referral needs its pictures")
    try:
        sound = all(
            isinstance(part, dict) and len(json.dumps(part)) <= FORM
            for part in (item.form, item.sent)
        )
    except (TypeError, ValueError, RecursionError):
        sound = False
    if not sound:
        yield N_("the form of a referral is none")
    if item.stopped is not None and not _is_line(item.stopped):
        yield N_("it is unknown why a referral was stopped")
    yield from stamp(item.created)


def _is_line(stored: object) -> bool:
    """Whether it can be said, and nothing more is done by it."""
    if not isinstance(stored, dict) or set(stored) != {"code", "message", "values"}:
        return False
    message, values = stored["message"], stored["values"]
    if not isinstance(values, dict) or not all(
        isinstance(part, str) and len(part) <= ADDRESS
        for part in (message, stored["code"], *values, *values.values())
    ):
        return False
    bare = re.sub(r"\{(\w+)\}", lambda found: "" if found[1] in values else "{", message)
    return not values or not re.search("[{}]", bare)


def _parcel(item: StoredParcel, _now: str, _seen: str) -> Iterator[str]:
    if not isinstance(item.uid, str) or not re.fullmatch(r"[0-9A-Za-z.:-]{1,64}", item.uid):
        yield N_("a parcel lacks its number")
    if item.kind not in PARCEL_KINDS or item.state not in STATES:
        yield N_("a parcel of an unknown kind")
    if not isinstance(item.sha256, str) or not re.fullmatch("[0-9a-f]{64}", item.sha256):
        yield N_("a parcel lacks its checksum")
    for number, most in ((item.sequence, 10_000), (item.length, MAX_PARCEL)):
        if type(number) is not int or not 0 <= number <= most:
            yield N_("a parcel lacks its number")
    yield from text(item.place, ADDRESS)
    if not isinstance(item.references, tuple) or len(item.references) > PICTURES or not all(
        isinstance(one, str) and len(one) <= NAME for one in item.references
    ):  # fmt: skip
        yield N_("a parcel lacks its number")
    yield from stamp(item.received)
    if bool(item.received) != (item.state == RECEIVED) or type(item.dated) is not bool:
        yield N_("it is unknown when a parcel was received")


def _answer(item: StoredAnswer, _now: str, _seen: str) -> Iterator[str]:
    yield from text(item.source, ADDRESS, N_("an answer needs its source"))
    yield from text(item.text, ANSWER)
    yield from text(item.author, NAME)
    yield from text(item.issued, NAME)
    yield from text(item.version, NAME, N_("an answer needs its source"))
    yield from text(item.status, NAME)
    if not all(type(it) is bool for it in (item.wants_better_picture, item.more)):
        yield N_("it is unknown what an answer asks for")
    yield from stamp(item.received)
    if type(item.dated) is not bool:
        yield N_("it is unknown when an answer came")
    try:
        size = len(base64.b64decode(item.document, validate=True))
    except (TypeError, ValueError):
        size = DOCUMENT + 1
    if size > DOCUMENT:
        yield N_("the document of an answer is too large, or none")


FAULTS: dict[type, Callable[..., Iterator[Any]]] = {
    Destination: _destination,
    StoredReferral: _referral,
    StoredParcel: _parcel,
    StoredAnswer: _answer,
}
