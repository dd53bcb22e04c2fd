"""What became of a referral, in words. No Kivy in it; words are in the app's language."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date, timedelta
from typing import NamedTuple

from edge_app.i18n import language
from edge_app.i18n.language import _, n_
from edge_app.referral.outbox import DONE, STATES, STOPPED, Status
from edge_app.store import clock
from edge_app.store.records import seconds
from edge_app.store.referrals import RECEIVED, UNANSWERED, WAITING, StoredAnswer, standing


class Event(NamedTuple):
    """One line of the timeline."""

    title: str
    when: str  # empty: it has no time of its own
    detail: str = ""


def timeline(status: Status) -> tuple[Event, ...]:
    """Queued, sent, received, answered, as far as it came; why it goes no further."""
    return tuple(_events(status))


def _events(status: Status) -> Iterator[Event]:
    referral, parcels = status.referral, status.parcels
    yield Event(_("Queued"), _when(referral.created), _("to {name}", name=referral.receiver))
    if referral.consent:
        text, _gap, given = referral.consent.rpartition(" ")
        known = seconds(given) > -math.inf  # else it is older, without a time
        when, text = (_when(given), text) if known else ("", referral.consent)
        yield Event(_("Consent to send"), when, text)
    if any(one.state != WAITING for one in parcels):
        count = n_(
            "{done} of {count} part received",
            "{done} of {count} parts received",
            len(parcels),
            done=language.number(status.received),
        )
        yield Event(_("Sending begun"), "", count)
    if received := [one for one in parcels if one.state == RECEIVED]:
        last = max(received, key=lambda one: one.received)
        if status.received == len(parcels):
            yield Event(_("Received"), _when(last.received, last.dated), last.place)
    for answer in status.answers:
        title = _("Answer taken back") if answer.taken_back else _("Answered")
        yield Event(title, _when(answer.received, answer.dated), author(answer))
    if status.state == STOPPED and referral.why is not None:
        yield Event(_("Stopped"), "", language.sentence(_(referral.why)))
    elif status.received < len(parcels) and status.attempt.why is not None:
        yield Event(_("Tried, not sent yet"), _when(status.attempt.at), _attempt(status))


def _attempt(status: Status) -> str:
    """Why it did not work, and when it is tried again."""
    attempt = status.attempt
    reason = language.sentence(_(attempt.why)) if attempt.why is not None else ""
    try:
        again = clock.moment(attempt.at) + timedelta(seconds=attempt.delay)
    except (ValueError, OverflowError):
        return reason
    when = language.moment(again.isoformat())
    return f"{reason} {_('It is tried again by {when}.', when=when)}"


def headline(status: Status) -> str:
    """How it stands, on one line."""
    title = language.capital(_(STATES[status.state]))
    if found := standing(status.answers):
        return f"{title}: {author(found[-1])}"
    if status.state != DONE and status.received:
        done, of = language.number(status.received), language.number(len(status.parcels))
        return _("{state} ({done} of {of})", state=title, done=done, of=of)
    return title


def sent_to(status: Status) -> str:
    """To whom and when it was queued, on one line."""
    day = language.day(status.referral.created)
    return _("to {name}, {day}", name=status.referral.receiver, day=day)


def author(answer: StoredAnswer) -> str:
    """Of whom an answer is, and of which day."""
    found = day_of(answer)
    day = language.day(found) if found else _("date not known")
    if answer.author:
        return _("from {name}, {day}", name=answer.author, day=day)
    return _("without a name, {day}", day=day)


def day_of(answer: StoredAnswer) -> str:
    """The ISO date that it was here when it was written, else when it came; empty: not known."""
    with suppress(ValueError, OverflowError):
        return clock.local_day(answer.issued)
    with suppress(ValueError):  # a day alone, or a time without its zone
        return date.fromisoformat(answer.issued[:10]).isoformat()
    return clock.local_day(answer.received) if answer.dated else ""


def standing_of(answer: StoredAnswer, answers: Sequence[StoredAnswer]) -> str:
    """What has to be known before an answer is read; empty for one that stands, and is final."""
    last = [one for one in answers if one.source == answer.source][-1]
    if last.taken_back:
        return _("Its author took this answer back: do not act on it.")
    if last is not answer:
        return _("Replaced: its author has sent another version since.")
    if answer.status in UNANSWERED:
        return _("The receiver does not take this referral: ask there, or ask somebody else.")
    if answer.status in ("preliminary", "partial"):
        return _("Not final: its author may still change it.")
    return ""


def _when(stamp: str, dated: bool = True) -> str:
    if not stamp:
        return ""
    return language.moment(stamp) if dated else _("date not known")
