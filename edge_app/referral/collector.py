"""Fetching answers: by FHIR, and from our studies by DICOMweb, as far as the receiver has them."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from time import monotonic

from dermedge import UserError
from edge_app import unforeseen
from edge_app.i18n.language import N_, Message
from edge_app.referral import carriers
from edge_app.referral.answers import (
    TOO_LARGE,
    Answer,
    SaysNothing,
    Sent,
    TakenBack,
    from_fhir,
    has_more,
    is_there,
    located,
)
from edge_app.referral.carriers import Carrier, Later
from edge_app.referral.carriers.outcome import UNFORESEEN, is_alone
from edge_app.referral.outbox import ASKED
from edge_app.store import clock, damage
from edge_app.store.damage import LeftOut, without_damage
from edge_app.store.records import StoreError
from edge_app.store.referrals import (
    RECEIVED,
    Destination,
    Endpoint,
    StoredAnswer,
    StoredParcel,
    StoredReferral,
    standing,
)
from edge_app.store.store import Store
from edge_app.store.validation_mail import ANSWER, DOCUMENT

AT_ONCE = 16  # referrals in one question: IIS takes 2,048 characters of it
DAYS = 365  # from its receipt, after which nobody answers any more
# What a FHIR answer is, and the search by what we asked.
SEARCHES = (("DiagnosticReport", "based-on"), ("Communication", "based-on"))
# With what they answer, for a receiver may give another's request the address of ours after a
# fault; and with who answers.
INCLUDES = {
    "DiagnosticReport": ("based-on", "results-interpreter", "performer"),
    "Communication": ("based-on", "sender"),
}
TOO_MUCH = ("long", "answer-large")  # codes of what may be asked for in parts
LOST = N_(
    "{receiver} does not have the referral of {day} any more, and has not answered it: ask there, "
    "or make a new one"
)
MORE = N_("a referral has more answers than the receiver gives at once: ask the receiver")


@dataclass
class Collected:
    """What one round brought. `refused` : answers that were not taken, and why; `failed` : who
    could not be asked, and why."""

    new: list[StoredAnswer] = field(default_factory=list)
    refused: list[UserError] = field(default_factory=list)
    failed: list[UserError] = field(default_factory=list)


class Collector:
    """Asks receivers for answers. To be used by one thread; `stop` may be set by any."""

    def __init__(
        self,
        store: Store,
        stop: threading.Event | None = None,
        connect: Callable[[Endpoint], Carrier] = carriers.connect,
    ):
        self._store, self._connect = store, connect
        self._stop = stop or threading.Event()
        self._left = LeftOut()  # of this round
        self._lost: list[UserError] = []  # of this round
        # By referral and UID, files of its study that hold no answer, and why.
        self._none: dict[str, dict[str, UserError]] = {}
        # Who asked to wait, until when, and in which words.
        self._busy: dict[Endpoint, tuple[float, UserError]] = {}

    def run(self) -> Collected:
        """Ask each receiver once. Raises StoreError where the store was closed."""
        found = Collected()
        self._left, self._lost = LeftOut(), []
        endpoints = [
            (endpoint, destination.id, open_)
            for destination, open_ in self._open().items()
            for endpoint in dict.fromkeys(filter(None, (destination.fhir, destination.dicom)))
        ]
        for endpoint, to, open_ in endpoints:
            until, busy = self._busy.get(endpoint, (0.0, None))
            if busy and monotonic() < until:
                found.failed.append(busy)
                continue
            try:
                for answers, refused in self._ask(endpoint, to, open_):
                    gone = [it for it in refused if isinstance(it, TakenBack) and self._has(it)]
                    others = [it for it in refused if not isinstance(it, SaysNothing)]
                    found.refused += [it for it in others if not self._had(it)]
                    for answer in (*answers, *(it.answer for it in gone)):
                        if kept := self._keep(answer):
                            found.new.append(kept)
            except StoreError:
                raise
            except UserError as error:  # another endpoint or receiver may answer
                found.failed.append(error)
                if isinstance(error, Later) and error.retry_after:
                    self._busy[endpoint] = monotonic() + min(error.retry_after, ASKED), error
            # Whatever a library raises on what comes from outside: nobody waits for ever for it.
            except Exception as error:
                unforeseen.report(error)
                words = Message(UNFORESEEN, fault=type(error).__name__)
                found.failed.append(UserError(words, code="unforeseen"))
        found.failed += [*self._lost, *self._left.lines]
        with contextlib.suppress(StoreError):  # what came is kept, and reported all the same
            self._store.mail.note_faults([*found.refused, *found.failed])
        return found

    def _open(self) -> dict[Destination, list[StoredReferral]]:
        """Referrals of which something was received and may be answered, by their receiver."""
        mail, oldest = self._store.mail, ""
        now = clock.now()
        if not clock.fault(now):
            oldest = (clock.moment(now) - timedelta(days=DAYS)).isoformat()
        known = {one.id: one for one in mail.destinations(self._left)}
        waiting = {
            one.id
            for one in mail.waiting(self._left)
            if all(it.state != RECEIVED for it in self._parcels(one))
        }
        found = defaultdict(list)
        for one in mail.referrals(leave_out=self._left):
            if not one.sent or one.id in waiting:
                continue
            to = [known[it] for it in (one.destination,) if it in known]
            to = to or self._at_its_place(one, known.values())
            if to and not self._is_over(one, oldest):
                for destination in to:
                    found[destination].append(one)
        return found

    def _at_its_place(
        self, referral: StoredReferral, known: Iterable[Destination]
    ) -> list[Destination]:
        """Its receiver where that was removed and entered again, or on another device."""
        places = [it.place for it in self._parcels(referral) if it.state == RECEIVED]
        return [one for one in known if one.is_at(places)]

    def _is_over(self, referral: StoredReferral, oldest: str) -> bool:
        """Whether the last of it was received before that: it may have waited long to be sent, or
        the clock was behind when it was queued."""
        parcels = self._parcels(referral)
        last = max([referral.created, *(one.received for one in parcels if one.dated)])
        return not clock.fault(last) and last < oldest

    def _parcels(self, referral: StoredReferral) -> list[StoredParcel]:
        return self._store.mail.parcels(referral.id, self._left)

    def _answers(self, referral: str) -> list[StoredAnswer]:
        return self._store.mail.answers(referral, self._left)

    def _sent(self, referral: StoredReferral, base: str) -> Sent | None:
        """None where it is damaged."""
        parcels = self._parcels(referral)
        references = [it for one in parcels if one.state == RECEIVED for it in one.references]
        with without_damage(damage.row("referral", referral.id), self._left):
            try:
                return Sent.from_json(
                    {
                        **referral.sent,
                        "uids": [one.uid for one in parcels],
                        "references": references,
                        "base": base,
                    }
                )
            except (TypeError, KeyError):
                raise StoreError("a record lacks a part", code="record") from None
        return None

    def _ask(
        self, endpoint: Endpoint, to: str, referrals: Sequence[StoredReferral]
    ) -> Iterator[tuple[Sequence[Answer], Sequence[UserError]]]:
        """Answers to some of them at a time, and why others were not taken; `to` : who has it."""
        link = self._connect(endpoint)
        try:
            if hasattr(link, "search"):
                base = endpoint.address.rstrip("/")
                sent = [it for one in referrals if (it := self._sent(one, base)) and it.references]
                own = {one.id: one for one in referrals if one.destination == to}
                for first in range(0, len(sent), AT_ONCE):
                    if self._stop.is_set():
                        return
                    some = self._located(link, sent[first : first + AT_ONCE], own)
                    yield from self._by_fhir(link, some)
            elif hasattr(link, "foreign"):
                for one in referrals:
                    if self._stop.is_set():
                        return
                    named = self._sent(one, "")
                    if named is None:
                        continue
                    try:
                        yield self._by_dicom(link, named)
                    except UserError as error:  # of this study alone, unless nobody is there
                        if not is_alone(error):
                            raise
                        yield (), (error,)
        finally:
            link.close()

    def _located(self, link, sent: list[Sent], own: Mapping[str, StoredReferral]) -> list[Sent]:
        """As the receiver has them now: one that was set up again may have given other addresses.

        Without those that are neither here nor of `own`: of two receivers on one host, each is
        asked about what went to one that was removed.
        """
        numbers = ",".join(f"{it.request.system}|{it.request.value}" for it in sent)
        params = {"identifier": numbers, "_revinclude": "Task:focus", "_count": "200"}
        try:
            page = link.search("/ServiceRequest", params)
            half = len(sent) // 2
            if has_more(page) and half:
                halves = (sent[:half], sent[half:])
                return [it for some in halves for it in self._located(link, some, own)]
            found = located(page, sent, link.read)
            missing = [it for it in sent if it.referral in own and it.referral not in found]
            for one in missing if not has_more(page) else ():
                of = own[one.referral]
                if self._is_waited_for(of) and not is_there(one, link.read):
                    words = Message(LOST, receiver=of.receiver, day=clock.local_day(of.created))
                    self._lost.append(UserError(words, code="lost"))
        except UserError as error:
            if isinstance(error, Later) and error.down:
                raise
            return sent
        return [
            replace(it, references=found.get(it.referral, it.references))
            for it in sent
            if it.referral in {*own, *found}
        ]

    def _is_waited_for(self, referral: StoredReferral) -> bool:
        """Whether nobody has answered it, and no other of its spot was made after it."""
        last = self._store.mail.referrals(referral.lesion, self._left)[-1:]
        answered = standing(self._answers(referral.id))
        return not answered and [it.id for it in last] == [referral.id]

    def _by_fhir(self, link, sent: list[Sent]) -> Iterator[tuple]:
        def ours(kind: str) -> list[str]:
            return [it for one in sent for it in one.references if it.startswith(f"{kind}/")]

        requests, tasks = ours("ServiceRequest"), ours("Task")
        questions = [(kind, by, ",".join(requests)) for kind, by in SEARCHES if requests]
        if tasks:
            questions.append(("Task", "_id", ",".join(it.partition("/")[2] for it in tasks)))
        fault: UserError | None = None
        alone: list[UserError] = []
        for kind, by, numbers in questions:
            try:
                page = _searched(link, kind, {by: numbers, "_count": "200"})
                yield from_fhir(page, sent, link.read)
                if has_more(page):
                    fault = UserError(MORE, code="answer-more")
            except UserError as error:
                if error.code in TOO_MUCH:
                    fault = UserError(TOO_LARGE, code="answer-large")
                elif is_alone(error):
                    alone.append(error)  # a server may know reports, and no Communication
                else:
                    raise
        if len(alone) == len(questions) and {it.code for it in alone} == {"403"}:
            raise alone[0]  # it shows this device nothing at all
        yield (), alone
        # No address in an answer is followed, that of the next page either: less is asked at once.
        if fault and len(sent) == 1:
            yield (), (fault,)
        elif fault:
            half = len(sent) // 2
            yield from self._by_fhir(link, sent[:half])
            yield from self._by_fhir(link, sent[half:])

    def _by_dicom(self, link, sent: Sent) -> tuple[list[Answer], list[UserError]]:
        from edge_app.referral.answers_dicom import from_dicom

        answers: list[Answer] = []
        refused: list[UserError] = []
        # Of one that is amended the version is its UID, and the source that of the first.
        first = {it: one.source for one in self._answers(sent.referral)
                 for it in (one.source, one.version)}  # fmt: skip
        # What is none of ours stays so: it keeps no later answer away, nor is it fetched again.
        none = self._none.setdefault(sent.referral, {})
        seen, whole = sent.uids | first.keys() | none.keys(), False
        while not answers and not whole and not self._stop.is_set():
            some = link.foreign(sent.study_uid, seen, AT_ONCE)
            seen, whole = seen | {uid for uid, _data in some}, len(some) < AT_ONCE
            for uid, data in some:
                if isinstance(data, UserError):
                    refused.append(data)
                    continue
                try:
                    answers.append(from_dicom(data, [sent]))
                except UserError as error:
                    none[uid] = error
        return _amended(answers, first), [*none.values(), *refused]

    def _has(self, gone: TakenBack) -> bool:
        """Whether what its author takes back was kept, and stands: else there is nothing to say."""
        kept = self._answers(gone.answer.referral)
        return any(one.source == gone.answer.uid for one in standing(kept))

    def _had(self, refused: UserError) -> bool:
        """Whether it takes back what was kept: that is taken, and not refused at the next poll."""
        if not isinstance(refused, TakenBack):
            return False
        kept = self._answers(refused.answer.referral)
        return any(one.source == refused.answer.uid for one in kept)

    def _keep(self, answer: Answer) -> StoredAnswer | None:
        """None where it was kept before, or its referral was deleted meanwhile."""
        large = len(answer.report) > DOCUMENT
        stored = StoredAnswer(
            "",
            answer.referral,
            source=answer.uid,
            version=answer.version,
            text=answer.text[:ANSWER],
            author=answer.author,
            issued=answer.issued,
            status=answer.status[:200],
            wants_better_picture=answer.wants_better_picture,
            document="" if large else base64.b64encode(answer.report).decode(),
            more=answer.more or large,
        )
        try:
            if self._kept(stored):
                return None
            # First: an answer that is kept is not seen again, should this end in between.
            if stored.wants_better_picture:
                with without_damage(damage.row("referral", stored.referral), self._left):
                    self._remind(stored)
            kept = self._store.mail.add_answer(stored)
        except StoreError as error:
            if error.code == "gone":
                return None
            raise
        return kept

    def _kept(self, answer: StoredAnswer) -> bool:
        """Whether that version of it is kept, or the last one, which says the same."""
        kept = self._answers(answer.referral)
        if (answer.source, answer.version) in {(one.source, one.version) for one in kept}:
            return True
        # A FHIR server that was moved, or writes its index again, gives all that it has another
        # `meta`; of a file in our study the version is its UID, by which it is not fetched again.
        # One that was set up again gives it another address, too.
        last = [one for one in kept if one.source == answer.source][-1:] or standing(kept)
        same = "/" in answer.source and not answer.more
        return same and _said(answer) in map(_said, last)

    def _remind(self, answer: StoredAnswer) -> None:
        """ "Better picture, please": the lesion is due today."""
        lesion = self._store.lesion(self._store.mail.referral(answer.referral).lesion)
        today = date.today().isoformat()
        if lesion.remind is None or lesion.remind > today:
            self._store.update_lesion(replace(lesion, remind=today))


def _searched(link, kind: str, params: dict[str, str | list[str]]) -> bytes:
    """A searchset, with what belongs to the answers where the receiver gives it along."""
    include = [f"{kind}:{name}" for name in INCLUDES.get(kind, ())]
    try:
        return link.search(f"/{kind}", {**params, "_include": include})
    except Later as error:
        if error.code != "400":  # as of a server that does not know one of these
            raise
        return link.search(f"/{kind}", params)


def _said(answer: StoredAnswer) -> StoredAnswer:
    """What a nurse reads of it, and what kind it is."""
    kind = answer.source.partition("/")[0]
    return replace(answer, id="", source=kind, version="", received="", dated=True)


def _amended(answers: Sequence[Answer], first: Mapping[str, str]) -> list[Answer]:
    """Each after those that it replaces, and as another version of the first of them.

    `first` : by the UID of each that is kept, the source that it is kept under.
    """
    by_uid = {one.uid: one for one in answers}
    found: list[tuple[int, Answer]] = []
    for answer in answers:
        source, chain = answer.uid, [answer.uid]
        while source in by_uid and (earlier := by_uid[source].replaces) and earlier not in chain:
            source = earlier
            chain.append(source)
        if source != answer.uid:
            source = first.get(source, source)
            answer = replace(answer, uid=source, version=answer.uid)
        found.append((len(chain), answer))
    return [answer for _, answer in sorted(found, key=lambda it: it[0])]
