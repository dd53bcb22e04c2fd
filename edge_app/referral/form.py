"""A referral: what a nurse asks a dermatologist, as a frozen value.

It holds an allow-list of what may leave. There is no field for a name, an address, notes of the
store, a file's path or where a picture was taken, so none of them can be sent by mistake.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from dermedge import UserError
from dermedge.analysis import Analysis, lesion_outline
from dermedge.taxonomy import CLASSES
from dermedge.triage import TRIAGE
from edge_app.i18n.language import N_
from edge_app.presentation.estimate import quality_messages
from edge_app.referral.consent import Consent
from edge_app.referral.history import ONSETS, QUESTIONS
from edge_app.referral.uids import PSEUDONYM, TRACKING

KINDS = {
    "overview": N_("Overview"),
    "close_up": N_("Close-up"),
    "dermoscopic": N_("Dermoscopic picture"),
}
PRIORITIES = {
    "routine": N_("Routine"),
    "urgent": N_("Urgent"),
    "asap": N_("As soon as possible"),
}
SEXES = ("female", "male", "other")
AGE_GROUPS = ("0-15", "16-29", "30-39", "40-49", "50-59", "60-69", "70-79", "80-89", "90-")
IMMERSIONS = {  # PS3.3 C.8.12.13, Immersion Media (0016,1004)
    "ULTRASOUND_GEL": N_("ultrasound gel"),
    "ALCOHOL": N_("alcohol"),
    "WATER": N_("water"),
    "MINERAL_OIL": N_("mineral oil"),
    "PLASTIC_CAP": N_("plastic cap"),
}
TEXT = 4000  # characters of the question
IDENTIFIER = 64  # characters of an identifier, as DICOM's LO
SMALLEST = 16  # px of a side: JPEG-LS does not take less, and there is nothing to see
# What a receiver reads beside an estimate.
DARK_SKIN = "The model has seen few pictures of dark skin: its estimate is less sure."
DEMONSTRATION = "Demonstration model, trained on drawn pictures: the numbers mean nothing."
OLDEST = 90  # years: who is older is sent as this old (PS3.15 Annex E, Patient's Age)

Outline = tuple[tuple[float, float], ...]  # closed, (x, y), px, pixel centres at integers


@dataclass(frozen=True)
class Identifier:
    """What a receiver calls a person: a number of its own, in a system of its own (a URI)."""

    system: str
    value: str


@dataclass(frozen=True)
class Dermoscope:
    """How a dermoscopic picture was taken; None where nobody said."""

    contact: bool | None = None
    polarized: bool | None = None
    immersion: str | None = None  # of IMMERSIONS; only with contact


@dataclass(frozen=True)
class Findings:
    """What the model said of a picture, without anything of the device that it ran on."""

    outlines: tuple[Outline, ...]  # of the lesion, outer; empty where none was found
    triage: str  # of dermedge.triage.TRIAGE
    rule: str  # what led to it, in English
    malignancy: float  # 0..1
    probabilities: tuple[tuple[str, float], ...]  # of dermedge.taxonomy.CLASSES, the likely first
    area_px: float
    asymmetry: int | None  # 0..2
    border: int | None  # 0..8
    color: int | None  # 1..6
    colors: tuple[str, ...]
    diameter_mm: float | None
    reasons: tuple[str, ...]  # codes of dermedge.lesion.quality.TITLES that speak against it
    unfamiliar: bool  # unlike what the model was trained on
    demonstration: bool  # a model of drawn pictures: its numbers mean nothing
    bundle: str
    bundle_sha256: str
    software: str  # version of dermedge

    @property
    def judged(self) -> bool:
        """Whether its numbers mean anything: those of a refused picture only look like it."""
        return self.triage != "retake"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What speaks against the picture, in English, as the result shows it."""
        return quality_messages(self.reasons, bool(self.outlines))

    @classmethod
    def of(cls, analysis: Analysis | Mapping) -> Findings:
        """Of an Analysis, or of one that the store kept as JSON.

        Raises
        ------
        UserError : it is of another version of dermedge, or not whole.
        """
        found = analysis.to_json() if isinstance(analysis, Analysis) else analysis
        try:
            abcd, versions, outlines = found["abcd"], found["versions"], lesion_outline(found)
            if found["triage"] not in TRIAGE or not set(found["probabilities"]) <= set(CLASSES):
                raise KeyError(found["triage"])
            return cls(
                outlines=tuple(
                    tuple((float(x), float(y)) for x, y in polygon) for polygon in outlines
                ),
                triage=found["triage"],
                rule=found["rule"],
                malignancy=float(found["malignancy"]),
                probabilities=tuple(
                    sorted(found["probabilities"].items(), key=lambda it: (-it[1], it[0]))
                ),
                area_px=float(found["lesion"]["area_px"]) if outlines else 0.0,
                asymmetry=abcd["asymmetry"],
                border=abcd["border"],
                color=abcd["color"],
                colors=tuple(abcd["colors"]),
                diameter_mm=abcd["diameter_mm"],
                reasons=tuple(found["quality"]["reasons"]),
                unfamiliar=bool((found.get("familiarity") or {}).get("unfamiliar")),
                demonstration=bool(versions["procedural"]),
                bundle=versions["bundle"],
                bundle_sha256=versions["bundle_sha256"],
                software=versions["dermedge"],
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(
                N_("this analysis is not one that can be sent: analyse the picture again"),
                code="referral-analysis",
            ) from None


@dataclass(frozen=True, eq=False)
class ReferredPicture:
    """One picture of the lesion, and what was found in it."""

    id: str  # random, of the store
    kind: str  # of KINDS
    image: np.ndarray | bytes  # uint8 (h, w, 3) RGB, or the store's PNG, or the page's JPEG
    px_per_mm: float | None = None
    taken: datetime | None = None  # with a time zone; None: the clock was not right
    # Whether a face, a tattoo or jewellery can be recognized; None: nobody was asked.
    recognizable: bool | None = None
    dermoscope: Dermoscope | None = None
    findings: Findings | None = None

    def pixels(self) -> np.ndarray:
        """uint8 (h, w, 3) RGB.

        Raises
        ------
        UserError : the file cannot be read, or it is smaller than SMALLEST.
        ValueError : an array of another shape or type.
        """
        if isinstance(self.image, bytes):
            import cv2

            data = np.frombuffer(self.image, np.uint8)
            decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
            pixels = decoded
            if decoded is not None:  # in place: a picture may have 40 MB
                cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded)
        else:
            pixels = self.image
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                raise ValueError(f"a picture is uint8 (h, w, 3), not {pixels.shape}")
        if pixels is None or min(pixels.shape[:2]) < SMALLEST:
            words = N_("a picture of this referral cannot be read: take it again")
            raise UserError(words, code="referral-picture")
        return pixels


@dataclass(frozen=True)
class ReferredLesion:
    """Where, and which one over time."""

    site: str  # of edge_app.presentation.body_map.REGIONS
    tracking_uid: str  # `edge_app.referral.uids.tracking_uid` of lesion and receiver


@dataclass(frozen=True, eq=False)
class Referral:
    """What is asked, about whom, with which pictures.

    `answers` are of the questions that were asked: what is not there was not asked. `report` is
    the page for people, made without name and notes where `identifiers` is empty.
    """

    id: str  # a random UUID
    created: datetime  # with a time zone
    pseudonym: str  # `edge_app.referral.uids.pseudonym` of person and receiver
    lesion: ReferredLesion
    pictures: tuple[ReferredPicture, ...]
    consent: Consent | None
    identifiers: tuple[Identifier, ...] = ()  # of the receiver; none: pseudonymous
    birth_year: int | None = None
    age_group: str | None = None  # of AGE_GROUPS, where the year is not known
    sex: str | None = None  # of SEXES
    skin_type: int | None = None  # Fitzpatrick 1..6
    onset: str | None = None  # of ONSETS
    answers: tuple[tuple[str, bool], ...] = ()  # (key of QUESTIONS, yes or no)
    priority: str = "routine"  # of PRIORITIES
    question: str = ""
    report: bytes = b""  # a PDF

    def __post_init__(self):
        uuid.UUID(self.id)
        moments = [self.created, *(it.taken for it in self.pictures)]
        if self.consent is not None:
            moments.append(self.consent.given)
        known = (
            self.priority in PRIORITIES,
            self.sex in (None, *SEXES),
            self.skin_type in (None, *range(1, 7)),
            self.onset is None or self.onset in ONSETS,
            self.age_group in (None, *AGE_GROUPS),
            self.birth_year is None or self.age_group is None,
            all(key in QUESTIONS for key, _ in self.answers),
            len(dict(self.answers)) == len(self.answers),
            all(picture.kind in KINDS for picture in self.pictures),
            len({picture.id for picture in self.pictures}) == len(self.pictures),
            all(moment is None or moment.utcoffset() is not None for moment in moments),
            PSEUDONYM.fullmatch(self.pseudonym),
            TRACKING.fullmatch(self.lesion.tracking_uid),
        )
        if not all(known):
            broken = next(number for number, holds in enumerate(known, 1) if not holds)
            raise ValueError(f"a referral of another form: rule {broken}")

    @property
    def pseudonymous(self) -> bool:
        return not self.identifiers

    @property
    def patient_id(self) -> str:
        """What DICOM's Patient ID gets."""
        return self.identifiers[0].value if self.identifiers else self.pseudonym

    @property
    def age(self) -> int | None:
        """Years by the year of birth alone, which may be one too many."""
        if self.birth_year is None:
            return None
        return min(max(self.created.year - self.birth_year, 0), OLDEST)
