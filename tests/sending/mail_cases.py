"""Referrals in a store, for the tests of sending."""

from __future__ import annotations

from store.store_cases import fill

from edge_app.referral.outbox import Outbox
from edge_app.store.referrals import Destination, Endpoint, StoredReferral
from edge_app.store.store import Store
from sending.receivers import picture, request


def destination(cases: Store, dicom: Endpoint | None, fhir: Endpoint | None = None) -> Destination:
    return cases.mail.add_destination(Destination("", "Clinic", dicom, fhir))


def queue(
    cases: Store, to: Destination, pictures: int = 3, fhir: bool = False, id: str = "a" * 32,
    side: int = 16, found: tuple | None = None,
) -> StoredReferral:  # fmt: skip
    """A referral with so many pictures, of a person of its own or of `found`."""
    _person, lesion, capture = found or fill(cases, f"person {id}")
    parcels = [picture(id, number, side) for number in range(pictures)]
    if fhir:
        parcels.append(request(id, pictures))
    code = f"CODE{lesion.person[:8]}"
    referral = StoredReferral(id, lesion.id, to.id, to.name, "2.25.9", code, captures=(capture.id,))
    return Outbox(cases).queue(referral, parcels)


def state(cases: Store, id: str = "a" * 32) -> str:
    return Outbox(cases).status(cases.mail.referral(id)).state


def received(cases: Store, id: str = "a" * 32) -> list[str]:
    """UIDs that the store says were received."""
    return [one.uid for one in cases.mail.parcels(id) if one.state == "received"]
