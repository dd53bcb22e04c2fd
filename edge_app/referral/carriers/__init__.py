"""Ways to a receiver: a carrier takes one parcel there and shows that it arrived.

All carriers pass `tests/sending/test_carriers.py`. A new one is a class as `Carrier`,
a line in CARRIERS and a receiver in that test.
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from dermedge import UserError
from edge_app.i18n.language import N_, Message
from edge_app.referral.carriers.outcome import Later, Receipt, Refused
from edge_app.referral.parcels import Parcel
from edge_app.store.referrals import Endpoint

__all__ = ["CARRIERS", "NO_LIBRARY", "Carrier", "Later", "Receipt", "Refused", "connect"]


class Carrier(Protocol):
    """One connection to one door of a receiver. To be used by one thread at a time."""

    kinds: frozenset[str]  # of parcels that it takes

    def __init__(self, endpoint: Endpoint) -> None:
        """Reaches nobody yet. Raises UserError for an address that it must not use."""

    def check(self) -> Message:
        """Ask the receiver whether it is there, sending nothing of anybody; one line.

        Raises Later or Refused.
        """

    def deliver(self, parcel: Parcel, again: bool) -> Receipt:
        """Send a parcel, and have it shown that it is there, byte for byte or element for element.

        `again` : it may be there already. The same parcel may be delivered any number of times.
        Raises Later where it may work another time, Refused where it will not.
        """

    def close(self) -> None:
        """End the connection. A second call does nothing."""


NO_LIBRARY = N_("sending needs the extra {extra}: pip install 'dermedge[{extra}]'")
# Name: module of this package, and class. Each is imported when it is first used.
CARRIERS = {
    "dicomweb": ("dicomweb", "DicomWeb"),
    "dicom": ("dimse", "Dimse"),
    "fhir": ("fhir_rest", "FhirRest"),
    "folder": ("folder", "Folder"),
}


def connect(endpoint: Endpoint) -> Carrier:
    """Raises UserError where there is no such carrier, its library is missing, or the address
    must not be used.
    """
    if endpoint.carrier not in CARRIERS:
        words = N_("there is no way to send by {carrier}")
        raise UserError(Message(words, carrier=endpoint.carrier), code="no-carrier")
    module, name = CARRIERS[endpoint.carrier]
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)(endpoint)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("edge_app"):
            raise
        extra = "dicom-net" if endpoint.carrier == "dicom" else "send"
        raise UserError(Message(NO_LIBRARY, extra=extra), code="no-library") from None
