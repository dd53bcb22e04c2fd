"""What a store holds of what was sent to a dermatologist, as values."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from edge_app.i18n.language import N_, Message
from edge_app.store import clock

WAITING, SENT, RECEIVED = "waiting", "sent", "received"  # SENT: some of it may have left
STATES = (WAITING, SENT, RECEIVED)
UNANSWERED = frozenset({"rejected", "failed", "cancelled"})  # a Task at which nobody will look
TAKEN_BACK = frozenset({"entered-in-error", "cancelled"})  # of an answer, by its author
PARCEL_KINDS = ("dicom", "fhir")
NOT_WHOLE = N_("what waits here to be sent is damaged: make a new referral of these pictures")
UNKNOWN = N_("a receiver whose name is damaged")


@dataclass(frozen=True)
class Endpoint:
    """One door of a receiver. What it asks for is in `edge_app.referral.carriers`."""

    carrier: str  # a registered name, as "dicomweb"
    address: str  # a URL, HOST:PORT or a folder
    called: str = ""  # AE title of the receiver
    calling: str = ""  # AE title of this device
    user: str = ""
    password: str = ""  # of the user, or what seals the files of a folder
    token: str = ""  # sent as "Authorization: Bearer"
    authorities: str = ""  # PEM: certificates that may vouch for the receiver
    certificate: str = ""  # PEM: of this device
    key: str = ""  # PEM: of that certificate


@dataclass(frozen=True)
class Destination:
    """A receiver. It stays on the device: no export holds it, for it holds secrets."""

    id: str
    name: str
    dicom: Endpoint | None = None
    fhir: Endpoint | None = None
    system: str = ""  # a URI: whose numbers it knows people by; empty: they stay pseudonymous
    lossy: bool = False  # pictures go as JPEG, for a bad line

    def __post_init__(self):
        for name in ("dicom", "fhir"):  # as it comes from JSON
            value = getattr(self, name)
            if isinstance(value, dict):
                object.__setattr__(self, name, Endpoint(**value))

    def is_at(self, places: Collection[str]) -> bool:
        """Whether it has an address at one of these, as receipts name them."""
        doors = [door.address for door in (self.dicom, self.fhir) if door is not None]
        hosts = {(urlsplit(one).netloc or one).lower() for one in doors}
        return not hosts.isdisjoint(one.lower() for one in places)

    def endpoint(self, kind: str) -> Endpoint | None:
        """For a kind of parcel."""
        return self.dicom if kind == "dicom" else self.fhir


@dataclass(frozen=True)
class StoredReferral:
    """What was asked, of whom. Its parcels are frozen with it."""

    id: str
    lesion: str
    destination: str  # id
    receiver: str  # its name, when it was queued
    study_uid: str
    patient_id: str  # that the receiver sees
    created: str = ""  # ISO 8601, UTC
    captures: tuple[str, ...] = ()  # ids of the pictures that are sent
    consent: str = ""  # version and language of the text that was agreed to, and when
    form: Mapping = field(default_factory=dict)  # answers and priority, as JSON
    sent: Mapping = field(default_factory=dict)  # what an answer must name, `answers.Sent`
    stopped: Mapping | None = None  # why it is not sent: code, message and values of a line

    @property
    def why(self) -> Message | None:
        """The line that says why it is not sent."""
        return said(self.stopped) if self.stopped else None


@dataclass(frozen=True)
class StoredParcel:
    """One thing to be sent. Its bytes lie beside it until all of the referral was received."""

    id: str
    referral: str
    uid: str
    kind: str  # of PARCEL_KINDS
    sequence: int
    sha256: str  # of its bytes
    length: int  # bytes
    state: str = WAITING
    received: str = ""  # ISO 8601, UTC: when the receiver showed that it has it
    place: str = ""  # where that was asked
    dated: bool = True  # whether the clock was right then
    references: tuple[str, ...] = ()  # of FHIR: by which the receiver knows what was sent

    def is_of(self, data: bytes | None) -> bool:
        """Whether these are its bytes; None : there are none, and it needs none any more."""
        if data is None:
            return self.state == RECEIVED
        return hashlib.sha256(data).hexdigest() == self.sha256


@dataclass(frozen=True)
class StoredAnswer:
    """What came back, of a person and not of a model; see `edge_app.referral.answers.Answer`."""

    id: str
    referral: str
    source: str  # what it is at the receiver
    version: str  # of its content: an amended answer is kept beside the first
    text: str
    author: str = ""
    issued: str = ""  # as the receiver says, ISO 8601
    status: str = ""  # in the receiver's words
    wants_better_picture: bool = False
    document: str = ""  # a PDF, base64
    more: bool = False  # the receiver has more of it
    received: str = ""  # ISO 8601, UTC
    dated: bool = True  # whether the clock was right then

    @property
    def taken_back(self) -> bool:
        """Whether its author says by it that what came under its source before does not hold."""
        if not self.source.startswith("Task/"):
            return self.status in TAKEN_BACK
        # Our own, which was rejected and is worked on after all.
        silent = not (self.text or self.document or self.wants_better_picture or self.more)
        return silent and self.status not in UNANSWERED


def standing(answers: Sequence[StoredAnswer]) -> tuple[StoredAnswer, ...]:
    """Of answers as they came, the last of each source, without what was taken back."""
    latest = {answer.source: answer for answer in answers}
    return tuple(it for it in answers if latest[it.source] is it and not it.taken_back)


@dataclass(frozen=True)
class Elsewhere:
    """What was deleted here, and is or may be with a receiver."""

    receiver: str
    received: str  # ISO 8601, UTC; empty where it was being sent, and nobody knows

    @property
    def words(self) -> Message:
        if self.received:
            words = N_("already with {receiver}, since {when}")
            return Message(words, receiver=self.receiver, when=clock.local_day(self.received))
        words = N_("perhaps already with {receiver}: it was being sent")
        return Message(words, receiver=self.receiver)


@dataclass(frozen=True)
class Attempt:
    """How the sending of a referral went so far."""

    tries: int = 0  # without success
    at: str = ""  # ISO 8601, UTC, of the last
    delay: float = 0.0  # s from then to the next
    reason: Mapping | None = None  # of the last, as `StoredReferral.stopped`

    @property
    def why(self) -> Message | None:
        return said(self.reason) if self.reason else None


def line(words: Message | str, code: str) -> dict:
    """A line as it is stored, so that it can be said in another language later."""
    if isinstance(words, Message):
        values = {name: str(value) for name, value in words.values.items()}
        return {"code": code, "message": words.message, "values": values}
    return {"code": code, "message": str(words), "values": {}}


def said(stored: Mapping) -> Message:
    return Message(stored["message"], **stored["values"])
