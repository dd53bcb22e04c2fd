"""A referral while it is filled in: what was chosen and typed so far, and what is known already."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, count
from unicodedata import decimal

from edge_app.presentation.body_map import region
from edge_app.referral import uids
from edge_app.referral.consent import Consent
from edge_app.referral.form import (
    Dermoscope,
    Findings,
    Identifier,
    Referral,
    ReferredLesion,
    ReferredPicture,
)
from edge_app.referral.history import FROM_RISK_FACTORS, ONSETS, QUESTIONS
from edge_app.store import clock
from edge_app.store.damage import LeaveOut, stop
from edge_app.store.records import DermoscopeSettings, seconds
from edge_app.store.referrals import WAITING, Destination, StoredParcel, StoredReferral
from edge_app.store.store import Capture, Lesion, Person, Store

LASTING = ("own", "family")  # groups of questions whose answers hold for a person's next spot, too
SOON = 28 * 86400.0  # s, within which what began "in the last weeks" did so still


@dataclass
class DraftPicture:
    """A picture of the lesion that may be sent."""

    capture: Capture
    selected: bool = False
    kind: str = ""  # of form.KINDS; empty: nobody said


@dataclass(frozen=True)
class Lasting:
    """What of a draft need not be asked again."""

    kinds: tuple[tuple[str, str], ...]  # (id of a capture, what it shows)
    person: str  # id
    identifier: tuple[str, str] | None  # (system, number)
    dermoscope: DermoscopeSettings


@dataclass
class Draft:
    """Changed by the screen's thread alone; `start` reads the store and may be called from any."""

    person: Person
    lesion: Lesion
    pictures: list[DraftPicture]  # the newest first; without those that cannot be read here
    unreadable: int  # pictures of a newer dermedge, which cannot be sent
    destinations: tuple[Destination, ...]
    dermoscope: DermoscopeSettings
    destination: Destination | None = None
    identifier: str = ""  # the person's number at the destination; empty: pseudonymous
    recognizable: bool | None = None  # whether a picture shows who it is; None: nobody was asked
    onset: str | None = None  # of history.ONSETS
    answers: dict[str, bool] = field(default_factory=dict)  # of history.QUESTIONS
    priority: str = "routine"  # of form.PRIORITIES
    question: str = ""
    consent: Consent | None = None
    # By the ids of receivers, the lesion's identities there, the last first.
    tracked: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    # By the ids of receivers, the person's codes there, those of the lesion first.
    known: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    # By these codes, the ids of the receivers that they are made for, and whether each has it.
    coded: dict[str, dict[str, bool]] = field(default_factory=lambda: defaultdict(dict))
    id: str = field(default_factory=lambda: uuid.uuid4().hex)  # a second press queues nothing twice

    @classmethod
    def start(
        cls, store: Store, lesion_id: str, captures: Collection[str] = (),
        leave_out: LeaveOut = stop,
    ) -> Draft:  # fmt: skip
        """Of a lesion, with all that is known of it filled in. Raises StoreError.

        Parameters
        ----------
        captures : ids of the pictures to send; none: the newest of each kind.
        """
        lesion = store.lesion(lesion_id)
        person = store.person(lesion.person)
        kept = store.captures(lesion_id, leave_out)
        pictures = [DraftPicture(it, kind=it.kind) for it in reversed(kept) if it.readable]
        destinations = tuple(store.mail.destinations(leave_out))
        draft = cls(
            person, lesion, pictures, len(kept) - len(pictures), destinations,
            store.dermoscope(leave_out),
        )  # fmt: skip
        draft._select(captures)
        draft.choose(destinations[0] if len(destinations) == 1 else None)
        draft._remember(store, leave_out)
        return draft

    def _select(self, captures: Collection[str]) -> None:
        if captures:
            for picture in self.pictures:
                picture.selected = picture.capture.id in captures
            return
        kinds = set()
        for picture in self.pictures:
            picture.selected = picture.kind not in kinds
            kinds.add(picture.kind)
        if any(kinds):  # of one of no kind nobody knows what it would add
            for picture in self.pictures:
                picture.selected = picture.selected and bool(picture.kind)

    def _remember(self, store: Store, leave_out: LeaveOut) -> None:
        """Answers that hold still: of the risk factors, and of the person's last referrals."""
        own = {lesion.id for lesion in store.lesions(self.person.id, leave_out)}
        # The last one counts, of whatever spot.
        for earlier in store.mail.referrals(leave_out=leave_out):
            same = earlier.lesion == self.lesion.id
            if earlier.lesion not in own:
                continue
            parcels = store.mail.parcels(earlier.id, leave_out)
            to, codes = self._receiver(earlier, parcels), [earlier.patient_id]
            if same:
                tracked = str(earlier.form.get("tracking", ""))
                known = uids.TRACKING.fullmatch(tracked)
                uid = tracked if known else uids.tracking_uid(self.lesion.id)  # by dermedge 0.2.0
                self.tracked[to].insert(0, uid)
                codes.append(uid)
            left = any(it.state != WAITING for it in parcels)
            for code in codes:
                self.coded[code][to] = left or self.coded[code].get(to, False)
            if uids.PSEUDONYM.fullmatch(earlier.patient_id) and not earlier.form.get("identifiers"):
                at = 0 if same else len(self.known[to])
                self.known[to].insert(at, earlier.patient_id)
            self._take_over(earlier, same)
        for risk in self.person.risk_factors:
            if key := FROM_RISK_FACTORS.get(risk):
                self.answers[key] = True

    def _receiver(self, earlier: StoredReferral, parcels: Collection[StoredParcel]) -> str:
        """The id of its receiver; of one that was removed, that by which it was entered again."""
        if all(one.id != earlier.destination for one in self.destinations):
            places = [it.place for it in parcels]
            for one in self.destinations:
                if one.name == earlier.receiver and one.is_at(places):
                    return one.id
        return earlier.destination

    def _take_over(self, earlier: StoredReferral, same: bool) -> None:
        for key, yes in earlier.form.get("answers", ()):
            if key in QUESTIONS and QUESTIONS[key].group in LASTING:
                self.answers[key] = bool(yes)
        onset = earlier.form.get("onset")
        if same and onset in ONSETS:
            passed = seconds(clock.now()) - seconds(earlier.created)
            holds = onset in ("years", "birth") or 0 <= passed <= SOON
            self.onset = onset if holds else None

    def choose(self, destination: Destination | None) -> None:
        """Where it goes; the person's number there is filled in where it is known."""
        self.destination, self.identifier = destination, ""
        if destination is not None and destination.system:
            self.identifier = dict(self.person.identifiers).get(destination.system, "")

    def lasting(self) -> Lasting:
        """As it is now: the screen goes on while it is written."""
        number, system = self.number, self.destination and self.destination.system
        return Lasting(
            tuple((one.capture.id, one.kind) for one in self.selected if one.kind),
            self.person.id,
            (system, number) if system and number else None,
            self.dermoscope,
        )

    @property
    def number(self) -> str:
        """The person's number as it is sent, in Latin digits: some Arabic keyboards type others,
        by which the receiver would find nobody."""
        typed = self.identifier.strip()
        return "".join(str(decimal(it)) if it.isdecimal() else it for it in typed)

    @property
    def selected(self) -> list[DraftPicture]:
        return [picture for picture in self.pictures if picture.selected]

    @property
    def dermoscopic(self) -> bool:
        """Whether one of the pictures was taken with a dermoscope."""
        return any(picture.kind == "dermoscopic" for picture in self.selected)

    @property
    def whole(self) -> bool:
        """Whether `referral` can be made of it: each picture has a kind, and it has a receiver."""
        return self.destination is not None and all(picture.kind for picture in self.selected)

    def referral(
        self, now: datetime, images: Mapping[str, bytes] | None = None, report: bytes = b""
    ) -> Referral:
        """What is filled in so far, as a value.

        Parameters
        ----------
        now : with a time zone.
        images : the stored pictures by their captures' ids; without them nothing can be sent, but
            what is missing can be said.

        Raises
        ------
        ValueError : it is not `whole`.
        UserError : an analysis cannot be sent.
        """
        if self.destination is None or not self.whole:
            raise ValueError("a referral needs a receiver, and each picture a kind")
        person, lesion, system = self.person, self.lesion, self.destination.system
        number = self.number
        return Referral(
            id=self.id,
            created=now,
            pseudonym=self._code(self.known, uids.pseudonym, person.id),
            lesion=ReferredLesion(
                region(lesion.view, lesion.x, lesion.y) or "",
                self._code(self.tracked, uids.tracking_uid, lesion.id),
            ),
            pictures=tuple(self.referred(images)),
            consent=self.consent,
            identifiers=(Identifier(system, number),) if system and number else (),
            birth_year=person.year_of_birth,
            sex=person.sex,
            skin_type=person.skin_type,
            onset=self.onset,
            answers=tuple((key, self.answers[key]) for key in QUESTIONS if key in self.answers),
            priority=self.priority,
            question=self.question.strip(),
            report=report,
        )

    def _code(
        self, sent: Mapping[str, Collection[str]], make: Callable[..., str], record: str
    ) -> str:
        """Of a person or a spot at the receiver: that by which it is known there, else none that a
        referral which was moved took to another."""
        to = self.destination.id if self.destination is not None else ""
        made = (make(record, to, *map(str, range(1, more))) for more in count(1))
        codes = chain(sent.get(to, ()), made)
        theirs = {it for it, at in self.coded.items() if at.keys() - {to} and not at.get(to)}
        return next(code for code in codes if code not in theirs)

    def referred(self, images: Mapping[str, bytes] | None = None) -> Iterator[ReferredPicture]:
        """Those of the pictures that are selected and of which somebody said what they are.

        Parameters and errors as of `referral`.
        """
        settings = self.dermoscope
        scope = Dermoscope(settings.contact, settings.polarized, settings.immersion)
        for picture in self.selected:
            capture = picture.capture
            if not picture.kind:
                continue
            yield ReferredPicture(
                capture.id,
                picture.kind,
                (images or {}).get(capture.id, b""),
                capture.px_per_mm,
                clock.moment(capture.taken).astimezone() if capture.dated else None,
                self.recognizable,
                scope if picture.kind == "dermoscopic" else None,
                Findings.of(capture.analysis),
            )

    @property
    def risk_factors(self) -> tuple[str, ...]:
        """What of the person's may leave: where a question asks for it, if that is answered so."""
        return tuple(
            risk
            for risk in self.person.risk_factors
            if risk not in FROM_RISK_FACTORS or self.answers.get(FROM_RISK_FACTORS[risk])
        )

    @property
    def private(self) -> tuple[str, ...]:
        """Words that must not leave with a pseudonymous referral."""
        return (self.person.name,)
