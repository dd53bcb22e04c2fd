"""What the screens do to send a spot to a dermatologist, and to show what became of it.

Each function reads or writes the store and may take a moment: call it beside the screen. They raise
UserError, of which StoreError is a kind.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from dermedge import UserError
from dermedge.files import write_atomic
from dermedge.image.read import read_image
from edge_app.browser import check_writable, free_path, shrunk
from edge_app.i18n.language import N_, Message
from edge_app.referral import carriers, review
from edge_app.referral.background import may_reach
from edge_app.referral.carriers import NO_LIBRARY
from edge_app.referral.dispatch import dispatch, options
from edge_app.referral.draft import Draft, Lasting
from edge_app.referral.form import Referral
from edge_app.referral.outbox import ANSWERED, DONE, STOPPED, Outbox, Status
from edge_app.referral.review import Gap, Row
from edge_app.store import clock, damage
from edge_app.store.damage import LeaveOut, pass_over, stop, without_damage
from edge_app.store.referrals import Destination, StoredAnswer, StoredReferral, standing
from edge_app.store.store import Capture, Lesion, Person, Store, StoreError

THUMBNAIL = 320  # px, long side
PRINTED = 4096  # px, long side of the picture on the report
LIBRARIES = ("pydicom", "highdicom", "jpeg_ls", "requests")  # of the extra `send`
# What the report's page tells of a person, with and without a number of the receiver. Never a name.
PSEUDONYMOUS = ("sex", "skin_type", "risk_factors")
IDENTIFIED = (*PSEUDONYMOUS, "year_of_birth")
NO_NETWORK = N_(
    "This program may not use the network here: a service of its own sends. Its administrator can "
    "test it by `dermedge send check`."
)


@dataclass(frozen=True, eq=False)
class Prepared:
    """All that would leave, for a person to look at."""

    referral: Referral
    rows: tuple[Row, ...]
    gaps: tuple[Gap, ...]  # the required first
    pictures: dict[str, np.ndarray]  # small ones by id, uint8 (h, w, 3) RGB

    @property
    def ready(self) -> bool:
        """Whether it may be sent."""
        return not any(gap.required for gap in self.gaps)


@dataclass(frozen=True)
class Case:
    """A referral as the screens show it, and whose it is."""

    status: Status
    lesion: Lesion
    person: Person

    @property
    def group(self) -> str:
        """Of GROUPS."""
        state = self.status.state
        return state if state in (STOPPED, DONE, ANSWERED) else "waiting"


GROUPS = {
    STOPPED: N_("Not sent: something has to be done"),
    "waiting": N_("Waiting to be sent"),
    DONE: N_("Received, not answered yet"),
    ANSWERED: N_("Answered"),
}


# ---------------------------------------------------------------------------- sending


def begin(
    store: Store, lesion: str, captures: Collection[str] = (), leave_out: LeaveOut = stop
) -> Draft:
    """A form with all that is known; `captures` as `Draft.start` takes them."""
    if not all(map(find_spec, LIBRARIES)):
        raise UserError(Message(NO_LIBRARY, extra="send"), code="no-library")
    _must_be_dated(clock.now())
    return Draft.start(store, lesion, captures, leave_out)


def _must_be_dated(now: str) -> None:
    """Raises StoreError by a clock that cannot be right: study, age and consent are of that day."""
    if wrong := clock.words(now):
        raise StoreError(wrong, code="clock")


def remember(store: Store, lasting: Lasting) -> Person:
    """Keep what need not be asked again; the person as they are now. Writes only what is new."""
    for id, kind in lasting.kinds:
        capture = store.capture(id)
        if capture.kind != kind:
            store.update_capture(replace(capture, kind=kind))
    if lasting.dermoscope != store.dermoscope(pass_over):  # a damaged one is entered again
        store.set_dermoscope(lasting.dermoscope)
    person = store.person(lasting.person)
    if lasting.identifier is not None and lasting.identifier not in person.identifiers:
        pairs = tuple({**dict(person.identifiers), **dict([lasting.identifier])}.items())
        person = replace(person, identifiers=pairs)
        store.update_person(person)
    return person


def prepare(store: Store, draft: Draft, now: datetime) -> Prepared:
    """Read the pictures, print the page, say what leaves. Some tenths of a second a picture."""
    _must_be_dated(clock.stamp(now))
    images = {one.capture.id: store.picture(one.capture.id) for one in draft.selected}
    report = _report(draft, images)
    referral = draft.referral(now, images, report)
    small = {id: shrunk(read_image(one).pixels, THUMBNAIL) for id, one in images.items()}
    rows = review.preview(referral, draft.risk_factors)
    return Prepared(referral, rows, review.missing(referral, draft.private), small)


def queue(store: Store, draft: Draft, prepared: Prepared) -> StoredReferral:
    """Freeze what was looked at: when it returns, it is on disk, and will be sent."""
    to = draft.destination
    if to is None:
        raise ValueError("a referral needs a receiver")
    chosen = options(to, draft.private)
    return dispatch(store, prepared.referral, draft.lesion.id, to, chosen)


def _report(draft: Draft, images: dict[str, bytes]) -> bytes:
    """The page about the picture that shows most; empty where there is none."""
    from edge_app.documents import pdf

    order = ("dermoscopic", "close_up", "overview")
    shown = min(draft.selected, key=lambda one: order.index(one.kind), default=None)
    if shown is None:
        return b""
    known = draft.destination is not None and draft.destination.system and draft.number
    pixels = shrunk(read_image(images[shown.capture.id]).pixels, PRINTED)
    fields = IDENTIFIED if known else PSEUDONYMOUS
    person = replace(draft.person, risk_factors=draft.risk_factors)
    return pdf.case(pdf.Shot(shown.capture, pixels), None, person, draft.lesion, fields)


# ---------------------------------------------------------------------------- what became of it


def case(store: Store, id: str, leave_out: LeaveOut = stop) -> Case:
    """One referral."""
    return _case(store, Outbox(store).status(store.mail.referral(id), leave_out))


def cases(store: Store, lesion: str = "", leave_out: LeaveOut = stop) -> list[Case]:
    """All referrals, or those of a lesion, the oldest first."""
    outbox, found = Outbox(store), []
    for one in store.mail.referrals(lesion, leave_out):
        # Without its person or spot nobody knows whose it is.
        with without_damage(damage.row("referral", one.id, "lesion", one.lesion), leave_out):
            found.append(_case(store, outbox.status(one, leave_out)))
    return found


def _case(store: Store, status: Status) -> Case:
    lesion = store.lesion(status.referral.lesion)
    return Case(status, lesion, store.person(lesion.person))


def counts(store: Store) -> dict[str, int]:
    """How many referrals there are of each of GROUPS."""
    found = dict.fromkeys(GROUPS, 0)
    for status in Outbox(store).all(pass_over):  # the list of them names what is left out
        state = status.state
        found[state if state in found else "waiting"] += 1
    return found


def wanted(store: Store, lesion: str, leave_out: LeaveOut = stop) -> StoredAnswer | None:
    """The newest answer that asks for a better picture, unless one was taken since."""
    captures = store.captures(lesion, leave_out)
    asking = [
        answer
        for referral in store.mail.referrals(lesion, leave_out)
        for answer in standing(store.mail.answers(referral.id, leave_out))
        if answer.wants_better_picture and not _taken_since(answer, referral, captures)
    ]
    return max(asking, key=lambda it: it.received, default=None)


def _taken_since(
    answer: StoredAnswer, referral: StoredReferral, captures: Sequence[Capture]
) -> bool:
    """Whether a picture is newer than an answer or, where that has no date, than those sent."""
    if answer.dated:
        return any(one.dated and one.taken >= answer.received for one in captures)
    return bool(captures) and captures[-1].id not in referral.captures


def save_document(store: Store, answer: StoredAnswer, folder: Path) -> Path:
    """The PDF of an answer as a plain file in `folder`."""
    check_writable(folder)
    path = free_path(folder, f"answer-{clock.local_day(answer.received)}", ".pdf")
    with store.act("report", answer.referral):
        write_atomic(path, base64.b64decode(answer.document), private=True)
    return path


# ---------------------------------------------------------------------------- receivers


def check(destination: Destination) -> list[str]:
    """Ask each door of a receiver whether it is there, sending nothing of anybody: its lines.

    Raises UserError for the first that is not, and where this program may not use the network: a
    stick, too, is then written by the service that sends, and by that alone.
    """
    doors = list(dict.fromkeys(filter(None, (destination.dicom, destination.fhir))))
    if not may_reach():
        raise UserError(NO_NETWORK, code="no-network")
    lines: list[str] = []
    for door in doors:
        with closing(carriers.connect(door)) as link:
            lines.append(link.check())
    return lines


def save_destination(store: Store, destination: Destination) -> Destination:
    """Add it where it has no id yet, else change it.

    Raises UserError for an address or passphrase that must not be used.
    """
    for door in (destination.dicom, destination.fhir):
        if door is not None:
            carriers.connect(door).close()
    if destination.id:
        store.mail.update_destination(destination)
        return destination
    return store.mail.add_destination(destination)
