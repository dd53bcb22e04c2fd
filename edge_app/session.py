"""What goes on behind the screens, without a window: who is at work, on whom, with which pictures.

A series is the pictures of one lesion in front of the camera, which give one result. It belongs to
a lesion of the store, or to nobody until it is kept. A visit lasts until the screen is cleared for
whoever comes next; nothing of it is left in the session afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from dermedge import UserError
from dermedge.bundle.manifest import Manifest
from dermedge.combine import Combined, combine
from edge_app import cases, folders, unforeseen
from edge_app.browser import make_private
from edge_app.capture.shots import Result, Shot
from edge_app.capture.sources import Frame
from edge_app.kiosk import LOG, PIN_FILE, Pin
from edge_app.self_check import Check
from edge_app.settings import Settings
from edge_app.store import clock, damage
from edge_app.store.damage import LeftOut, stop, without_damage
from edge_app.store.records import BY_CLOCK, UNKNOWN
from edge_app.store.referrals import Elsewhere
from edge_app.store.store import Capture, Lesion, NotWiped, Person, Store

if TYPE_CHECKING:
    from edge_app.referral.background import SenderThread

CONSENT = 1  # version of the terms; a new one is asked for again


class VisitOver(UserError):
    """Work beside the screen came to its end after the visit that it was begun in."""


@dataclass(frozen=True)
class Erased:
    """Something was deleted or replaced."""

    error: NotWiped | None  # why sealed traces of it are there for a while
    elsewhere: tuple[Elsewhere, ...] = ()  # what of it is with a receiver


@dataclass(frozen=True)
class Kept:
    """What `Session.keep` did."""

    lesion: Lesion  # in the store
    before: tuple[Result, ...]  # the series, as it was before
    results: tuple[Result, ...]  # the same; those that are in the store now know it
    error: UserError | None  # why the rest is not


class Session:
    """The state of one running app.

    Its attributes belong to the screen's thread; so do `agree`, `change`, `leave`, `begin`, `shot`,
    `take`, `give_way` and `accept`. Methods that touch the store may take a moment (they decrypt
    and encrypt): call them from another thread, within `on_behalf_of`; then what they would set of
    a visit that has ended is refused by VisitOver. `lock` and `opened` may be called from any
    thread. They raise UserError, of which StoreError is a kind.
    """

    def __init__(self, home: Path, manifest: Manifest, kiosk: bool = False):
        """`home` : folder of the app's own files, made private where missing."""
        make_private(home)
        self.home, self.manifest, self.kiosk = home, manifest, kiosk
        self.settings = Settings.load(home / "settings.json")
        self._usual: Settings | None = None  # the operator's, where a visit has others
        self.pin = Pin(home / PIN_FILE)
        self.visit = 0  # number of the visit
        self.store: Store | None = None
        self.sender: SenderThread | None = None  # sends beside the screens while the store is open
        self.operator = not kiosk  # may see people and settings
        self.agreed = not kiosk and self.settings.consent >= CONSENT
        self.person: Person | None = None
        self.lesion: Lesion | None = None
        self.results: tuple[Result, ...] = ()  # of the series, the newest last
        self.reference = self.settings.reference  # what lies beside the lesion now
        self.refused = ""  # why the last shot failed
        self.faults: list[Check] = []  # that the self-check found at start
        self.folder: Path | None = None  # that was looked through last
        self._ids = count(1)  # of shots
        self._setting = threading.RLock()
        self._working = threading.local()
        self._closing: list[threading.Thread] = []

    # ------------------------------------------------------------------------ who is at work

    def agree(self) -> None:
        """The person has read the terms. A kiosk asks each person again."""
        self.agreed = True
        if not self.kiosk:
            self.change(consent=CONSENT)

    def change(self, **values) -> None:
        """Change settings and keep them; what a kiosk's visitor changes is for the visit alone."""
        if not self.operator and self._usual is None:
            self._usual = replace(self.settings)
        self.settings = replace(self.settings, **values)
        self.reference = values.get("reference", self.reference)
        if self.operator:
            if self._usual is not None:
                self._usual = replace(self._usual, **values)
            (self._usual or self.settings).save(self.home / "settings.json")

    def leave(self) -> None:
        """Clear what the next person must not see. A device of one's own locks its store."""
        with self._setting:
            self.visit += 1
            self.person = self.lesion = self.folder = None
            self.results, self.refused = (), ""
            self.settings, self._usual = self._usual or self.settings, None
            self.reference = self.settings.reference
            if self.kiosk:
                self.agreed = self.operator = False
        if not self.kiosk:
            self.lock()

    @contextmanager
    def on_behalf_of(self, visit: int) -> Iterator[LeftOut]:
        """What this thread sets of the session within is for that visit alone; what it leaves out
        by `leave_out` is in the value."""
        self._working.visit, self._working.left = visit, LeftOut()
        try:
            yield self._working.left
        finally:
            del self._working.visit, self._working.left

    def leave_out(self, what: str, error: UserError) -> None:
        """A `LeaveOut` for work beside the screen, which names it in the end."""
        getattr(self._working, "left", stop)(what, error)

    def _set(self, **values) -> None:
        with self._setting:
            if getattr(self._working, "visit", self.visit) != self.visit:
                raise VisitOver("the screen was cleared meanwhile", code="visit_over")
            for name, value in values.items():
                setattr(self, name, value)

    def enter(self, pin: str) -> None:
        """The operator of a kiosk; raises WrongPin."""
        self.pin.check(pin)
        self._set(operator=True)

    # ------------------------------------------------------------------------ the store

    @property
    def store_path(self) -> Path:
        return self.home / folders.CASES

    @property
    def log_path(self) -> Path:
        """A kiosk's log."""
        return self.home / LOG

    def create(self, passphrase: str) -> None:
        self._open(Store.create(self.store_path, passphrase))

    def unlock(self, passphrase: str) -> None:
        self._open(Store.open(self.store_path, passphrase))

    def _open(self, store: Store) -> None:
        from edge_app.referral.background import SenderThread

        sender = SenderThread(store)
        try:
            self._set(store=store, sender=sender)
        except VisitOver:
            store.close()
            raise
        sender.start()

    def lock(self) -> None:
        """Forget the store at once, and close it beside: a long import may hold it.

        Its keys are gone when that is done; `wait_until_locked` waits for it.
        """
        with self._setting:
            store, self.store = self.store, None
            sender, self.sender = self.sender, None
        if sender is not None:
            sender.stop()
        if store is not None:
            thread = threading.Thread(target=_close, args=(store,), name="dermedge-closing")
            self._closing = [*(one for one in self._closing if one.is_alive()), thread]
            thread.start()

    def give_way(self, busy: bool) -> None:
        """Nothing new is sent while somebody waits for a result."""
        if self.sender is not None:
            self.sender.give_way(busy)

    def wait_until_locked(self) -> None:
        """Until what was begun with stores that are locked now has come to its end."""
        for thread in self._closing:
            thread.join()
        self._closing = []

    def opened(self) -> Store:
        """The store; UserError where it is locked."""
        store = self.store
        if store is None:
            raise UserError("The cases are locked.")
        return store

    def save_person(self, person: Person) -> Person:
        """Add it where it has no id yet, else change it; it is at work afterwards."""
        if person.id:
            self.opened().update_person(person)
        else:
            person = self.opened().add_person(person)
        self._set(person=person)
        return person

    def save_lesion(self, lesion: Lesion) -> Lesion:
        """The same for a lesion."""
        if lesion.id:
            self.opened().update_lesion(lesion)
        else:
            lesion = self.opened().add_lesion(lesion)
        self._set(lesion=lesion)
        return lesion

    def change_lesion(self, lesion: Lesion, **values) -> Lesion:
        """Change these alone: an answer that came meanwhile may have made it due."""
        return self.save_lesion(replace(self.opened().lesion(lesion.id), **values))

    def delete_person(self, person_id: str) -> Erased:
        found = _erased(partial(self.opened().delete_person, person_id))
        self._set(person=None, lesion=None)
        return found

    def delete_lesion(self, lesion: Lesion) -> Erased:
        found = _erased(partial(self.opened().delete_lesion, lesion.id))
        self._set(lesion=None)
        return found

    def delete_capture(self, capture_id: str) -> Erased:
        return _erased(partial(self.opened().delete_capture, capture_id))

    def delete_referral(self, referral_id: str) -> Erased:
        return _erased(partial(self.opened().delete_referral, referral_id))

    def due(self, today: date) -> list[tuple[Lesion, Person]]:
        """Lesions that are to be photographed again by today, the longest due first."""
        store, found = self.opened(), []
        for one in store.reminders(today.isoformat(), self.leave_out):
            with without_damage(damage.row("lesion", one.id, "person", one.person), self.leave_out):
                found.append((one, store.person(one.person)))
        return found

    def change_passphrase(self, old: str, new: str) -> Erased:
        """Raises WrongKey."""
        return _erased(partial(self.opened().change_key, old, new))

    def change_pin(self, old: str, new: str) -> None:
        """Raises WrongPin."""
        self.pin.check(old)
        self.pin.set(new)

    # ------------------------------------------------------------------------ pictures

    def begin(self, lesion: Lesion | None = None) -> None:
        """A new series, of a lesion of the store or of nobody."""
        self.results, self.lesion, self.refused = (), lesion, ""

    def shot(self, source: Frame | Path, today: date) -> Shot:
        """A release of the shutter, now: of the visit, lesion and person that are at work.

        A file is of the day on which it was taken, where it says that.
        """
        taken = cases.taken(source) if isinstance(source, Path) else None
        day = clock.moment(taken).astimezone().date() if taken else today
        return Shot(
            source,
            id=next(self._ids),
            visit=self.visit,
            lesion_id=self.lesion.id if self.lesion else "",
            metadata=self.metadata(day, by_clock=not taken),
            reference=self.reference,
            taken=taken,
        )

    def save(self, result: Result) -> Result:
        """Put a result into the store, under its lesion: when this returns, it is on disk.

        A lesion that was due is so no more, unless the picture cannot be judged, is older, or does
        not say when it was taken.
        """
        return self._save(result, result.lesion_id)

    def take(self, result: Result) -> None:
        """One more picture of the series."""
        self.results += (result,)

    @property
    def saved(self) -> bool:
        """Whether all of the series is on disk."""
        return bool(self.results) and all(result.saved for result in self.results)

    def together(self) -> tuple[Combined | None, int]:
        """What the pictures of the series say that are of the last one's day, as those of old
        photos are not, None for a single one, which says it itself; and how many others there are.
        """
        counts = clock.of_last_day([result.taken or "" for result in self.results], clock.now())
        analyses = [r.analysis for r, used in zip(self.results, counts, strict=True) if used]
        combined = combine(analyses, self.manifest) if len(analyses) > 1 else None
        return combined, counts.count(False)

    def keep(self, lesion: Lesion, results: tuple[Result, ...]) -> Kept:
        """Save pictures of a series that belong to nobody under a lesion, a new one, too.

        Sets nothing of the session: `accept` does, in the screen's thread. Where the first picture
        cannot be saved, it raises and no new lesion is left; where a later one cannot, `Kept.error`
        says why, and the pictures before it are kept.
        """
        store = self.opened()
        kept = lesion if lesion.id else store.add_lesion(lesion)
        done = list(results)
        for number, result in enumerate(results):
            try:
                if not result.saved:
                    done[number] = self._save(result, kept.id)
            except UserError as error:
                if any(result.saved for result in done):
                    return Kept(kept, results, tuple(done), error)
                if not lesion.id:
                    store.delete_lesion(kept.id)  # or the next try would add another
                raise
        return Kept(kept, results, tuple(done), None)

    def accept(self, kept: Kept) -> None:
        """The series is that lesion's from now on, unless another was begun since."""
        if self.results is kept.before:
            self.results, self.lesion = kept.results, kept.lesion

    def _save(self, result: Result, lesion_id: str) -> Result:
        analysis = result.analysis
        scale = (analysis["scale"] or {}).get("px_per_mm")
        width, height = analysis["size"]
        dating = UNKNOWN if result.taken == "" else BY_CLOCK  # where no time is given
        record = Capture(
            "", lesion_id, result.taken or "", analysis, (width, height), scale, dating=dating
        )
        store = self.opened()
        saved = store.add_capture(record, result.png)
        _photographed(store, saved)
        return replace(result, record_id=saved.id, lesion_id=lesion_id, png=b"")

    def correct_date(self, capture_id: str, day: date) -> None:
        """Say on which day a picture was taken; what is due as for `save`."""
        store = self.opened()
        _photographed(store, store.correct_date(capture_id, day.isoformat()))

    def metadata(self, day: date, by_clock: bool = True) -> dict[str, object]:
        """Of the person and lesion at work, as `Analyzer.analyze` takes it."""
        person, lesion = self.person, self.lesion
        if person is None or lesion is None:
            return {}
        return cases.metadata(person, lesion, day, by_clock)


def _photographed(store: Store, capture: Capture) -> None:
    """Its lesion is due no more, if that was to be photographed by then."""
    if capture.dated and capture.triage != "retake":
        with suppress(UserError):  # the picture is kept; then it stays due
            lesion = store.lesion(capture.lesion)
            if lesion.remind and lesion.remind <= clock.local_day(capture.taken):
                store.update_lesion(replace(lesion, remind=None))


def _erased(action: Callable[[], tuple[Elsewhere, ...] | None]) -> Erased:
    try:
        elsewhere = action()
    except NotWiped as error:
        return Erased(error, error.elsewhere)
    return Erased(None, elsewhere or ())


def _close(store: Store) -> None:
    try:
        store.close()
    except Exception as error:
        unforeseen.report(error)
