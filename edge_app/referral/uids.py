"""Identifiers of what is sent: made from random record ids, never from a name or a clock.

The same record gives the same identifier, so that sending twice makes nothing twice; and other
content gives another, so that an archive cannot keep old bytes under a new picture's name.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_app.referral.form import Referral

# Random, of this project: what the identifiers in FHIR are unique within, as a URI.
SYSTEM = "urn:oid:2.25.36748770229461313478477935510454211468"
CODES = f"{SYSTEM}.1"  # the private codes in FHIR
IMPLEMENTATION = "2.25.6429713747272279178606756117559214876"
TRACKING = re.compile(r"2\.25\.\d{1,39}")
PSEUDONYM = re.compile("[A-Z2-7]{8,16}")
_CODE = 12  # characters of a pseudonym


def uid(*parts: str | bytes) -> str:
    """A DICOM UID, 2.25.<UUID>, that depends on all of the parts (PS3.5 B.2)."""
    return f"2.25.{_uuid(*parts).int}"


def urn(*parts: str | bytes) -> str:
    """The same as urn:uuid, as FHIR wants it for `fullUrl`."""
    return f"urn:uuid:{_uuid(*parts)}"


def study_uid(referral: Referral) -> str:
    """Study Instance UID of all that a referral sends."""
    return uid("study", referral.id)


def tracking_uid(lesion: str, *destination: str) -> str:
    """The lesion's identity over time at one receiver, of the store's random ids.

    Two receivers get two, as of `pseudonym`; dermedge 0.2.0 made it of the lesion's id alone.
    """
    return uid("lesion", lesion, *destination)


def pseudonym(person: str, destination: str, *more: str) -> str:
    """What stands for a person at one receiver: 12 of A-Z and 2-7, of the store's random ids.

    Two receivers get two codes, so that they cannot join what they have.
    """
    digest = _digest("person", person, destination, *more)
    return base64.b32encode(digest).decode()[:_CODE]


def _uuid(*parts: str | bytes) -> uuid.UUID:
    return uuid.UUID(bytes=_digest(*parts)[:16], version=5)


def _digest(*parts: str | bytes) -> bytes:
    whole = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        whole.update(len(data).to_bytes(8, "big") + data)  # "ab", "c" is not "a", "bc"
    return whole.digest()
