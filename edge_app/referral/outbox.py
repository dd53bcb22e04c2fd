"""Which referral is sent when: states, waits between tries, and what stops one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dermedge import UserError
from edge_app.i18n.language import N_, Message
from edge_app.referral.carriers import Later
from edge_app.referral.parcels import Parcel
from edge_app.store import clock, damage
from edge_app.store.damage import LeaveOut, LeftOut, stop, without_damage
from edge_app.store.referrals import (
    NOT_WHOLE,
    RECEIVED,
    WAITING,
    Attempt,
    Destination,
    StoredAnswer,
    StoredParcel,
    StoredReferral,
    line,
    standing,
)
from edge_app.store.store import Store

FIRST, MOST_WAIT = 5.0, 3600.0  # s between two tries
ASKED = 24 * 3600.0  # s that a receiver may ask to wait
QUEUED, SENDING, DONE, ANSWERED, STOPPED = "queued", "sending", "received", "answered", "stopped"
STATES = {
    QUEUED: N_("waits to be sent"),
    SENDING: N_("is being sent"),
    DONE: N_("received"),
    ANSWERED: N_("answered"),
    STOPPED: N_("not sent: something has to be done"),
}


@dataclass(frozen=True)
class Status:
    """How a referral stands."""

    referral: StoredReferral
    state: str  # of STATES
    parcels: tuple[StoredParcel, ...]
    answers: tuple[StoredAnswer, ...]
    attempt: Attempt

    @property
    def received(self) -> int:
        """How many of its parcels the receiver has shown."""
        return sum(one.state == RECEIVED for one in self.parcels)


class Outbox:
    """The referrals of an open store. Each method may be called from any thread."""

    def __init__(self, store: Store, uniform: Callable[[float, float], float] = random.uniform):
        """`uniform` : draws a wait between two bounds."""
        self._mail, self._uniform = store.mail, uniform

    def queue(self, referral: StoredReferral, parcels: Sequence[Parcel]) -> StoredReferral:
        """Freeze a referral: when it returns, it is on disk and will be sent. Raises StoreError."""
        destination = self._mail.destination(referral.destination)
        for kind in {parcel.kind for parcel in parcels}:
            must_take(destination, kind)
        stored = [
            (StoredParcel("", "", it.uid, it.kind, it.sequence, it.sha256, len(it.data)), it.data)
            for it in parcels
        ]
        return self._mail.queue(referral, stored)

    def status(self, referral: StoredReferral, leave_out: LeaveOut = stop) -> Status:
        """One of which a parcel is damaged goes nowhere any more: it is stopped."""
        left = LeftOut()
        parcels = tuple(self._mail.parcels(referral.id, left))
        answers = tuple(self._mail.answers(referral.id, leave_out))
        halts = bool(left.what) and self._mail.waits(referral.id)
        if left.what and not halts:  # nothing of it is sent any more
            parcels = tuple(self._mail.parcels(referral.id, leave_out))
        if halts:
            why = referral.stopped or line(Message(NOT_WHOLE), "damaged")
            referral, state = replace(referral, stopped=why), STOPPED
        elif all(one.state == RECEIVED for one in parcels):
            state = ANSWERED if standing(answers) else DONE
        elif referral.stopped:
            state = STOPPED
        else:
            state = QUEUED if all(one.state == WAITING for one in parcels) else SENDING
        attempt = Attempt()
        with without_damage("", damage.pass_over):  # then it is tried at once
            attempt = self._mail.attempt(referral.id)
        return Status(referral, state, parcels, answers, attempt)

    def all(self, leave_out: LeaveOut = stop) -> list[Status]:
        """The oldest first."""
        found = self._mail.referrals(leave_out=leave_out)
        return [self.status(one, leave_out) for one in found]

    def due(self, leave_out: LeaveOut = stop) -> list[Status]:
        """What is to be sent now, the oldest first, and what has to be stopped."""
        found = [one for one in self._mail.waiting(leave_out) if not one.stopped]
        # An answer is not sent.
        waiting = [self.status(one, damage.pass_over) for one in found]
        return [one for one in waiting if one.state == STOPPED or is_due(one)]

    def failed(self, status: Status, error: Later) -> None:
        """It is tried again, the later the more often it failed, and not with all others at once.

        Full jitter (Brooker, "Exponential backoff and jitter", 2015), at least FIRST seconds.
        """
        tries = status.attempt.tries + 1
        longest = min(MOST_WAIT, FIRST * 2.0 ** min(tries, 20))
        delay = max(self._uniform(FIRST, longest), min(error.retry_after, ASKED))
        reason = line(error.words, error.code)
        self._mail.note_attempt(status.referral.id, Attempt(tries, clock.now(), delay, reason))


def is_due(status: Status) -> bool:
    """Whether its wait is over. A clock that was set back or ahead makes it due."""
    attempt = status.attempt
    if not attempt.at:
        return True
    try:
        passed = (clock.moment(clock.now()) - clock.moment(attempt.at)).total_seconds()
    except ValueError:
        return True
    return passed < 0 or passed >= attempt.delay


def must_take(destination: Destination, kind: str) -> None:
    """Raises UserError where there is no way to send that kind of parcel there."""
    if destination.endpoint(kind) is None:
        raise UserError(
            N_("{receiver} has no address for {kind}: enter one"),
            code="no-way",
            receiver=destination.name,
            kind={"dicom": "DICOM", "fhir": "FHIR"}[kind],
        )
