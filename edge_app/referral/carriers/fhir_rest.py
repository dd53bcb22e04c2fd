"""FHIR R4 by REST: one transaction, each of its entries read back (http.html#transaction)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dermedge import UserError
from edge_app.i18n.language import N_, Message, printable
from edge_app.referral.answers import assigned, most_of
from edge_app.referral.carriers.http import Response, Web
from edge_app.referral.carriers.outcome import (
    CHANGED,
    NOT_THERE,
    UNLISTED,
    Later,
    Receipt,
    Refused,
)
from edge_app.referral.parcels import Parcel
from edge_app.store import clock
from edge_app.store.referrals import Endpoint

JSON = "application/fhir+json"
THERE = N_("{place} answers as FHIR {version}")
NO_FHIR = N_("{place} does not answer as FHIR R4: check the address")
OTHER_PERSON = N_(
    "{place} knows the person under this number with another sex or year of birth: check the "
    "number and the person's data, ask its administrator, and make a new referral"
)
REASON = 200  # characters of what a receiver says
MOST = 32 * 2**20  # bytes of a searchset
# What was there before a referral or is worked on after it, and what of it must be as we said.
LASTING = {
    "Patient": ("resourceType", "identifier"),
    "Device": ("resourceType", "identifier"),
    "Task": ("resourceType", "identifier", "focus", "for"),
}
MOVING = ("ServiceRequest", "Consent")  # their status may have gone on


class FhirRest:
    """One FHIR server. To be used by one thread at a time."""

    kinds = frozenset({"fhir"})

    def __init__(self, endpoint: Endpoint):
        self._web = Web(endpoint)
        self.base = self._web.base
        # Some take a transaction at their address with a slash alone, and send there.
        self._root = "/" if endpoint.address.endswith("/") else ""

    def check(self) -> Message:
        found = self._web.ask("GET", "/metadata", {"Accept": JSON})
        self._web.must_be_well(found)
        stated = _parsed(found.body)
        version = printable(str(stated.get("fhirVersion", "")))[:10]
        if stated.get("resourceType") != "CapabilityStatement" or not version.startswith("4.0"):
            raise Refused(Message(NO_FHIR, place=self._web.place), "no-fhir")
        return Message(THERE, place=self._web.place, version=version)

    def deliver(self, parcel: Parcel, again: bool) -> Receipt:
        # Each entry is made only where nobody has its identifier: sending twice makes nothing new.
        headers = {"Content-Type": JSON, "Accept": JSON}
        most = most_of(parcel.data)
        response = self._web.ask("POST", self._root, headers, parcel.data, most=most)
        self._web.must_be_well(response, _outcome(response))
        try:
            references = assigned(parcel.data, response.body, self.search)
        except (Later, Refused):  # of a search
            raise
        except UserError:
            raise Later(Message(UNLISTED, place=self._web.place), "unlisted") from None
        entries = json.loads(parcel.data)["entry"]
        addresses = {
            entry.get("fullUrl", ""): reference
            for entry, reference in zip(entries, references, strict=True)
        }
        for entry, reference in zip(entries, references, strict=True):
            self._must_be_there(entry["resource"], reference, addresses, most)
        return Receipt(self._web.place, references)

    def _must_be_there(
        self, resource: dict, reference: str, addresses: dict[str, str], most: int
    ) -> None:
        found = self._web.ask("GET", f"/{reference}", {"Accept": JSON}, most=most)
        if found.status in (404, 410):
            raise Later(Message(NOT_THERE, place=self._web.place), "not-there")
        self._web.must_be_well(found)
        theirs = _parsed(found.body)
        if resource["resourceType"] == "Patient" and not _same_person(theirs, resource):
            raise Refused(Message(OTHER_PERSON, place=self._web.place), "other-person")
        if not _holds(theirs, resource, addresses):
            raise Refused(Message(CHANGED, place=self._web.place), "changed")

    def read(self, reference: str) -> dict[str, Any] | None:
        """What is at "ServiceRequest/7"; None: nothing. Raises Later or Refused."""
        found = self._web.ask("GET", f"/{reference}", {"Accept": JSON}, most=MOST)
        if found.status in (404, 410):
            return None
        self._web.must_be_well(found)
        return _parsed(found.body)

    def search(self, path: str, params: Mapping[str, str | list[str]] | None = None) -> bytes:
        """A searchset; raises Later or Refused."""
        found = self._web.ask("GET", path, {"Accept": JSON}, params=params, most=MOST)
        self._web.must_be_well(found, _outcome(found))
        return found.body

    def close(self) -> None:
        self._web.close()


def _same_person(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether nothing that the receiver knows of the person contradicts what we say."""
    sexes = {str(one.get("gender") or "unknown") for one in (theirs, ours)} - {"unknown"}
    born = str(theirs.get("birthDate") or "")
    return len(sexes) < 2 and (not born or born.startswith(ours.get("birthDate", "")))


def _holds(theirs: Any, ours: Any, addresses: dict[str, str], key: str = "") -> bool:
    """Whether all that we said is said there; the receiver may add, and it gives its own ids.

    What lives on at the receiver is what it makes of it: see LASTING and MOVING.
    """
    if isinstance(ours, dict):
        kind = ours.get("resourceType")
        if not isinstance(theirs, dict) or theirs.get("resourceType") != kind:
            return False
        own = [name for name in ours if name != "text"]
        if kind in LASTING:
            own = [name for name in own if name in LASTING[kind]]
        elif kind in MOVING:
            own = [name for name in own if name != "status"]
        return all(
            name in theirs and _holds(theirs[name], ours[name], addresses, name) for name in own
        )
    if isinstance(ours, list) and key == "identifier":  # it may know them by others, too
        return isinstance(theirs, list) and all(
            any(_holds(a, b, addresses) for a in theirs) for b in ours
        )
    if isinstance(ours, list):
        return (
            isinstance(theirs, list)
            and len(theirs) == len(ours)
            and all(_holds(a, b, addresses) for a, b in zip(theirs, ours, strict=True))
        )
    if key == "reference" and ours in addresses:
        return isinstance(theirs, str) and theirs.split("/_history")[0].endswith(addresses[ours])
    if isinstance(ours, (int, float)) and not isinstance(ours, bool):
        return isinstance(theirs, (int, float)) and abs(theirs - ours) <= 1e-9 * abs(ours)
    return bool(theirs == ours) or _same_moment(theirs, ours)


def _same_moment(theirs: Any, ours: Any) -> bool:
    """Of times: some write Z for +00:00, milliseconds, or all in one zone."""
    if not all(isinstance(it, str) and "T" in it for it in (theirs, ours)):
        return False
    try:
        return clock.moment(theirs) == clock.moment(ours)
    except ValueError:
        return False


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _outcome(response: Response) -> str:
    """What an OperationOutcome says, in one line; empty where it says nothing."""
    if response.status < 400:
        return ""
    for issue in _parsed(response.body).get("issue") or []:
        if isinstance(issue, dict):
            text = issue.get("diagnostics") or (issue.get("details") or {}).get("text") or ""
            line = printable(" ".join(str(text).split()))[:REASON]
            if line:
                return line
    return ""
