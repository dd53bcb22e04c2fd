"""A receiver while it is entered: what an operator typed and chose so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edge_app.i18n.language import N_
from edge_app.store.referrals import Destination, Endpoint

# How pictures go: of `edge_app.referral.carriers.CARRIERS`; "" : within the FHIR request.
WAYS = {
    "dicomweb": N_("DICOMweb (STOW-RS)"),
    "dicom": N_("DICOM (C-STORE by TLS)"),
    "folder": N_("Folder or stick"),
    "": N_("Within the FHIR request"),
}
SHARED = ("user", "password", "token", "authorities", "certificate", "key", "called", "calling")
DIFFERENT = N_(
    "Its two addresses have different passwords or certificates, which this form cannot hold: "
    "remove it, and enter it again by `dermedge send add`."
)
NAMELESS = N_("Give the receiver a name.")
NO_ADDRESS = N_("Enter where pictures go.")
NO_FHIR = N_("Enter the address of the FHIR server.")
NO_PASSPHRASE = N_("Enter the passphrase that opens the files, agreed on with the receiver.")
HALF_KEY = N_("A certificate of this device needs its key, and a key its certificate.")


@dataclass
class ReceiverDraft:
    """Plain texts, as they were typed. The screen's thread alone."""

    before: Destination
    name: str = ""
    way: str = "dicomweb"  # of WAYS
    address: str = ""  # of the pictures
    fhir: str = ""  # address
    called: str = ""
    calling: str = ""
    user: str = ""
    password: str = ""  # or the passphrase of a folder
    token: str = ""
    authorities: str = ""  # PEM
    certificate: str = ""  # PEM
    key: str = ""  # PEM
    system: str = ""
    lossy: bool = False

    @classmethod
    def of(cls, destination: Destination) -> ReceiverDraft:
        dicom, fhir = destination.dicom, destination.fhir
        door = dicom or fhir
        draft = cls(
            destination, destination.name, system=destination.system, lossy=destination.lossy
        )
        if door is not None:
            for name in SHARED:
                setattr(draft, name, getattr(door, name))
            draft.way = dicom.carrier if dicom is not None else ""
            draft.address = dicom.address if dicom is not None else ""
            draft.fhir = fhir.address if fhir is not None and fhir.carrier == "fhir" else ""
        return draft

    def faults(self) -> Iterator[str]:
        """What is missing, the first thing first."""
        dicom, fhir = self.before.dicom, self.before.fhir
        if dicom is not None and fhir is not None:
            stick = dicom.carrier == "folder" and fhir != dicom
            if stick or _shared(dicom) != _shared(fhir):
                yield DIFFERENT
        if not self.name.strip():
            yield NAMELESS
        if self.way and not self.address.strip():
            yield NO_ADDRESS
        if not self.way and not self.fhir.strip():
            yield NO_FHIR
        if self.way == "folder" and not self.password:
            yield NO_PASSPHRASE
        if bool(self.certificate) != bool(self.key):
            yield HALF_KEY

    def destination(self) -> Destination:
        """As it is kept."""
        shared = {name: getattr(self, name) for name in SHARED}
        dicom = Endpoint(self.way, self.address.strip(), **shared) if self.way else None
        fhir = Endpoint("fhir", self.fhir.strip(), **shared) if self.fhir.strip() else None
        if self.way == "folder":
            fhir = dicom  # it takes both
        return replace(
            self.before, name=self.name.strip(), dicom=dicom, fhir=fhir,
            system=self.system.strip(), lossy=self.lossy,
        )  # fmt: skip


def _shared(door: Endpoint) -> tuple[str, ...]:
    return tuple(getattr(door, name) for name in SHARED)
