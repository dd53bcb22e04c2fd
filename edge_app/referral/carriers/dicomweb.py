"""DICOMweb: STOW-RS to store, WADO-RS to see that it is there (PS3.18, 10.4 and 10.5)."""

from __future__ import annotations

import json
import os

from dermedge import UserError
from edge_app.i18n.language import N_, Message
from edge_app.referral.answers_dicom import PDF
from edge_app.referral.carriers.http import Response, Web
from edge_app.referral.carriers.instances import names, same
from edge_app.referral.carriers.outcome import (
    BROKEN,
    CHANGED,
    NOT_THERE,
    UNLISTED,
    Later,
    Receipt,
    Refused,
    is_alone,
)
from edge_app.referral.parcels import Parcel
from edge_app.store.referrals import Endpoint

JSON = "application/dicom+json"
REFERENCED, FAILED, INSTANCE, REASON = "00081199", "00081198", "00081155", "00081197"
LARGEST = 32 * 2**20  # bytes of an answer's file
# Reasons that are about the moment, not about the parcel (PS3.7 Annex C, PS3.4 B.2.3).
LATER_REASONS = (0x0110, *range(0xA700, 0xA800))
NOT_STORED = N_("{place} did not store the parcel (reason {reason}): ask its administrator")
NO_ROOM = N_("{place} has no room or is busy (reason {reason}): it is tried again")
THERE = N_("{place} answers as DICOMweb")
NO_DICOMWEB = N_("{place} does not answer as DICOMweb: check the address")


class DicomWeb:
    """One DICOMweb server. To be used by one thread at a time."""

    kinds = frozenset({"dicom"})

    def __init__(self, endpoint: Endpoint):
        self._web = Web(endpoint)

    def check(self) -> Message:
        found = self._web.ask("GET", "/studies", {"Accept": JSON}, params={"limit": "1"})
        self._web.must_be_well(found)
        self._found(found)
        return Message(THERE, place=self._web.place)

    def _found(self, response: Response) -> list:
        """What was searched for; Refused where it is no list, as of a page to log in."""
        listed = _parsed(response.body) if response.status != 204 else []
        if not isinstance(listed, list):
            raise Refused(Message(NO_DICOMWEB, place=self._web.place), "no-dicomweb")
        return listed

    def deliver(self, parcel: Parcel, again: bool) -> Receipt:
        where = names(parcel.data)
        path = f"/studies/{where.study}/series/{where.series}/instances/{where.instance}"
        if again and self._there(path, parcel.data):
            return Receipt(self._web.place)
        self._store(parcel)
        if not self._there(path, parcel.data):
            raise Later(Message(NOT_THERE, place=self._web.place), "not-there")
        return Receipt(self._web.place)

    def _store(self, parcel: Parcel) -> None:
        """Raises unless the receiver lists the parcel as stored, and not as failed."""
        boundary = os.urandom(16).hex()
        body = b"".join(
            [
                f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(),
                parcel.data,
                f"\r\n--{boundary}--\r\n".encode(),
            ]
        )
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        response = self._web.ask("POST", "/studies", {"Content-Type": kind, "Accept": JSON}, body)
        found = _parsed(response.body)
        failed = _listed(found, FAILED)
        if parcel.uid in failed or (failed and response.status >= 300):
            self._say_failed(failed.get(parcel.uid, next(iter(failed.values()))))
        self._web.must_be_well(response)
        if parcel.uid not in _listed(found, REFERENCED):
            raise Later(Message(UNLISTED, place=self._web.place), "unlisted")

    def _say_failed(self, reason: int) -> None:
        values = {"place": self._web.place, "reason": f"{reason:04X}"}
        if reason in LATER_REASONS:
            raise Later(Message(NO_ROOM, **values), "failed", down=True)
        raise Refused(Message(NOT_STORED, **values), "failed")

    def _there(self, path: str, data: bytes) -> bool:
        """Whether it is there as it is here. Raises Refused where other content is."""
        kind = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        most = 2 * len(data) + 2**20
        response = self._web.ask("GET", path, {"Accept": kind}, most=most)
        if response.status in (404, 410):
            return False
        self._web.must_be_well(response)
        theirs = _part(response)
        if theirs is None:
            return False
        if not same(data, theirs):
            raise Refused(Message(CHANGED, place=self._web.place), "changed")
        return True

    def foreign(
        self, study: str, ours: frozenset[str], most: int
    ) -> list[tuple[str, bytes | UserError]]:
        """UIDs of structured reports and documents of a study that are not ours, and DICOM files,
        or why one could not be fetched.

        At most `most` of them, the rest is found another time. Raises Later or Refused.
        """
        path = f"/studies/{study}/instances"
        response = self._web.ask("GET", path, {"Accept": JSON}, params={"limit": "500"})
        if response.status == 404:
            return []
        self._web.must_be_well(response)
        if not response.body:
            return []
        found: list[tuple[str, bytes | UserError]] = []
        for item in self._found(response):
            series, uid = (_first(item, tag) for tag in ("0020000E", "00080018"))
            # A PDF may have whatever modality fits what is in it (PS3.3, C.24.1).
            kind = "DOC" if _first(item, "00080016") == PDF else _first(item, "00080060")
            sound = all(isinstance(it, str) and it.replace(".", "").isdigit()
                        for it in (series, uid))  # fmt: skip
            if not sound or uid in ours or kind not in ("SR", "DOC", None):
                continue
            path = f"/studies/{study}/series/{series}/instances/{uid}"
            try:
                found += [(str(uid), data) for data in self._fetched(path)]
            except UserError as error:  # of this one alone, unless nobody is there
                if not is_alone(error):
                    raise
                found.append((str(uid), error))
            if len(found) >= most:
                break
        return found

    def _fetched(self, path: str) -> list[bytes]:
        """The file of an answer; none where it is there no more. Raises Later or Refused."""
        accept = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
        response = self._web.ask("GET", path, accept, most=LARGEST)
        if response.status in (404, 410):
            return []
        self._web.must_be_well(response)
        data = _part(response)
        if data is None:
            raise Later(Message(BROKEN, place=self._web.place), "broken")
        return [data]

    def close(self) -> None:
        self._web.close()


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _first(item: object, tag: str) -> object:
    try:
        return item[tag]["Value"][0]  # type: ignore[index]
    except (KeyError, IndexError, TypeError):
        return None


def _listed(found: object, tag: str) -> dict[str, int]:
    """UIDs of a sequence of the answer, and the reason of each; none where it has no such form."""
    try:
        items = found[tag]["Value"]  # type: ignore[index]
        listed = {}
        for item in items:
            reason = _first(item, REASON)
            uid = _first(item, INSTANCE)
            if isinstance(uid, str):
                listed[uid] = reason if type(reason) is int and 0 <= reason < 2**16 else 0
        return listed
    except (KeyError, IndexError, TypeError):
        return {}


def _part(response: Response) -> bytes | None:
    """The only part of a multipart answer; None where it is cut short or of another form."""
    body = response.body
    start, split = body.find(b"--"), body.find(b"\r\n\r\n")
    line = body.find(b"\r\n", start)
    if start < 0 or split < 0 or line < 0 or line > split:
        return None
    end = body.rfind(b"\r\n" + body[start:line])
    return body[split + 4 : end] if end > split else None
