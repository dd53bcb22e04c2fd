"""What goes on behind the screens, without a window: who is at work, on whom, with which pictures.

A sitting is one lesion in front of the camera: its pictures give one result. It belongs to a lesion
of the store, or to nobody until it is kept. A visit lasts until the screen is cleared for whoever
comes next; nothing of it is left in the session afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from dermedge import UserError
from dermedge.bundle.bundle import Manifest
from dermedge.combine import Combined, combine
from dermedge.image.read import read_image
from dermedge.lesion.scale import write_card
from edge_app import unforeseen
from edge_app.browser import check_writable, make_private
from edge_app.capture.shots import Explained, Result, Shot
from edge_app.capture.sources import Frame
from edge_app.capture.worker import Worker
from edge_app.follow_up.history import Comparison, compare
from edge_app.follow_up.people import age
from edge_app.kiosk import LOG, Check, Pin
from edge_app.presentation.body_map import region
from edge_app.settings import Settings
from edge_app.store.store import Capture, Lesion, NotWiped, Person, Store

CONSENT = 1  # version of the terms; a new one is asked for again
CASES = ".dermcases"  # the ending of what `Session.export` writes
SHOWN = 1280  # px, long side of a stored picture as the screens show it
SAME = 1e-3  # of a probability, up to which two analyses of a picture are one


class VisitOver(UserError):
    """Work beside the screen came to its end after the visit that it was begun in."""


@dataclass(frozen=True)
class Erased:
    """Something was deleted or replaced."""

    error: NotWiped | None  # why sealed traces of it are there for a while


@dataclass(frozen=True)
class Kept:
    """What `Session.keep` did."""

    lesion: Lesion  # in the store
    given: tuple[Result, ...]  # the sitting's pictures, as they were given
    results: tuple[Result, ...]  # the same; those that are in the store now know it
    error: UserError | None  # why the rest is not


class Session:
    """The state of one running app.

    Its attributes belong to the screen's thread. Methods that touch the store may take a moment
    (they decrypt and decode): call them from another one, within `on_behalf_of`; then what they
    would set of a visit that has ended is refused by VisitOver. They raise UserError, of which
    StoreError is a kind.
    """

    def __init__(self, home: Path, manifest: Manifest, kiosk: bool = False):
        """`home` : folder of the app's own files, made private where missing."""
        make_private(home)
        self.home, self.manifest, self.kiosk = home, manifest, kiosk
        self.settings = Settings.load(home / "settings.json")
        self.pin = Pin(home / "operator.pin")
        self.visit = 0  # number of the visit
        self.store: Store | None = None
        self.operator = not kiosk  # may see people and settings
        self.agreed = not kiosk and self.settings.consent >= CONSENT
        self.person: Person | None = None
        self.lesion: Lesion | None = None
        self.results: tuple[Result, ...] = ()  # of the sitting, the newest last
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
        """The person has read the terms. A kiosk asks each person anew."""
        self.agreed = True
        if not self.kiosk:
            self.change(consent=CONSENT)

    def change(self, **values) -> None:
        """Change settings and keep them."""
        for name, value in values.items():
            setattr(self.settings, name, value)
        self.reference = values.get("reference", self.reference)
        self.settings.save(self.home / "settings.json")

    def leave(self) -> None:
        """Clear what the next person must not see. A device of one's own locks its store."""
        with self._setting:
            self.visit += 1
            self.person = self.lesion = self.folder = None
            self.results, self.refused = (), ""
            self.reference = self.settings.reference
            if self.kiosk:
                self.agreed = self.operator = False
        if not self.kiosk:
            self.lock()

    @contextmanager
    def on_behalf_of(self, visit: int) -> Iterator[None]:
        """What this thread sets of the session within is for that visit alone."""
        self._working.visit = visit
        try:
            yield
        finally:
            del self._working.visit

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
        return self.home / "cases.db"

    @property
    def log_path(self) -> Path:
        """A kiosk's log."""
        return self.home / LOG

    def create(self, passphrase: str) -> None:
        self._open(Store.create(self.store_path, passphrase))

    def unlock(self, passphrase: str) -> None:
        self._open(Store.open(self.store_path, passphrase))

    def _open(self, store: Store) -> None:
        try:
            self._set(store=store)
        except VisitOver:
            store.close()
            raise

    def lock(self) -> None:
        """Forget the store at once, and close it beside: a long import may hold it.

        Its keys are gone when that is done; `wait_until_locked` waits for it.
        """
        with self._setting:
            store, self.store = self.store, None
        if store is not None:
            thread = threading.Thread(target=_close, args=(store,), name="dermedge-closing")
            self._closing = [*(one for one in self._closing if one.is_alive()), thread]
            thread.start()

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

    def delete_person(self, person: Person) -> Erased:
        found = _erased(partial(self.opened().delete_person, person.id))
        self._set(person=None, lesion=None)
        return found

    def delete_lesion(self, lesion: Lesion) -> Erased:
        found = _erased(partial(self.opened().delete_lesion, lesion.id))
        self._set(lesion=None)
        return found

    def due(self, today: date) -> list[tuple[Lesion, Person]]:
        """Lesions that are to be photographed again by today, the longest due first."""
        store = self.opened()
        return [(one, store.person(one.person)) for one in store.reminders(today.isoformat())]

    def change_passphrase(self, old: str, new: str) -> Erased:
        """Raises WrongKey."""
        return _erased(partial(self.opened().change_key, old, new))

    def change_pin(self, old: str, new: str) -> None:
        """Raises WrongPin."""
        self.pin.check(old)
        self.pin.set(new)

    # ------------------------------------------------------------------------ pictures

    def picture(self, capture: Capture, side: int = SHOWN) -> np.ndarray:
        """A stored picture, uint8 (h, w, 3) RGB, its long side at most `side` px."""
        pixels = read_image(self.opened().picture(capture.id)).pixels
        shrink = side / max(pixels.shape[:2])
        if shrink >= 1:
            return pixels
        return cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)

    def compared(
        self, first: Capture, second: Capture
    ) -> tuple[np.ndarray, np.ndarray, Comparison]:
        """Both pictures and what changed; UserError where one of them shows no lesion."""
        ours, theirs = self.picture(first), self.picture(second)
        return ours, theirs, compare(first, ours, second, theirs)

    def begin(self, lesion: Lesion | None = None) -> None:
        """A new sitting, of a lesion of the store or of nobody."""
        self.results, self.lesion, self.refused = (), lesion, ""

    def shot(self, source: Frame | Path, today: date) -> Shot:
        """A press of the shutter, now: of the visit, lesion and person that are at work."""
        return Shot(
            source,
            id=next(self._ids),
            visit=self.visit,
            lesion_id=self.lesion.id if self.lesion else "",
            metadata=self.metadata(today),
            reference=self.reference,
        )

    def save(self, result: Result) -> Result:
        """Put a result into the store, under its lesion: when this returns, it is on disk."""
        return self._save(result, result.lesion_id)

    def take(self, result: Result) -> None:
        """One more picture of the sitting's lesion."""
        self.results += (result,)

    @property
    def saved(self) -> bool:
        """Whether all of the sitting is on disk."""
        return bool(self.results) and all(result.saved for result in self.results)

    def together(self) -> Combined | None:
        """What the pictures of the sitting say; None for a single one, which says it itself."""
        if len(self.results) < 2:
            return None
        return combine([result.analysis for result in self.results], self.manifest)

    def keep(self, lesion: Lesion, results: tuple[Result, ...]) -> Kept:
        """Save pictures of a sitting that belong to nobody under a lesion, a new one, too.

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
        """The sitting is that lesion's from now on, unless another was begun since."""
        if self.results is kept.given:
            self.results, self.lesion = kept.results, kept.lesion

    def _save(self, result: Result, lesion_id: str) -> Result:
        analysis = result.analysis
        scale = (analysis["scale"] or {}).get("px_per_mm")
        record = Capture("", lesion_id, "", analysis, tuple(analysis["size"]), scale)
        saved = self.opened().add_capture(record, result.png)
        return replace(result, record_id=saved.id, lesion_id=lesion_id, png=b"")

    def metadata(self, today: date) -> dict[str, object]:
        """Of the person and lesion at work, as `Analyzer.analyze` takes it."""
        person, lesion = self.person, self.lesion
        return {} if person is None or lesion is None else _metadata(person, lesion, today)

    def explained(self, capture: Capture, worker: Worker) -> Explained:
        """A stored capture, to draw the risk map of: its picture is analysed once more.

        Raises UserError where that does not give the result that is stored: another model, or
        other data of the person, would explain another result than the one that is shown.
        """
        store = self.opened()
        picture, lesion = store.picture(capture.id), store.lesion(capture.lesion)
        person = store.person(lesion.person)
        reference = (capture.analysis["scale"] or {}).get("reference")
        if reference == "given":  # a scale, nothing in the picture
            reference = None
        taken = datetime.fromisoformat(capture.taken.replace("Z", "+00:00")).astimezone()
        # What was known of the person then is not stored. Pictures of nobody had none.
        for metadata in (_metadata(person, lesion, taken.date()), {}):
            explained = worker.explain(picture, metadata, reference)
            if _same(explained.analysis.to_json(), capture.analysis):
                return explained
        raise UserError(
            "The model and the person's data are no longer those of this result: there is no risk "
            "map of it. Take a new picture.",
            code="not_reproduced",
        )

    # ------------------------------------------------------------------------ in and out

    def export(self, folder: Path, passphrase: str, only: Person | None = None) -> Path:
        """All cases, or those of one person, as one encrypted file in `folder`."""
        check_writable(folder)
        # No name of a person: whoever finds the file must not learn it.
        path = _free(folder, f"cases-{date.today()}", CASES)
        self.opened().export(path, passphrase, only.id if only else None)
        return path

    def take_in(self, path: Path, passphrase: str) -> int:
        """What `export` wrote; returns how many pictures came new. Raises WrongKey."""
        return self.opened().merge(path, passphrase)

    def write_card(self, folder: Path, paper: str) -> Path:
        """The printable size card, on one of dermedge.lesion.scale.PAPERS."""
        check_writable(folder)
        path = _free(folder, f"size-card-{paper}", ".pdf")
        write_card(path, paper)
        return path

    def write_document(
        self, folder: Path, capture: Capture, earlier: Capture | None, fields: Sequence[str]
    ) -> Path:
        """The one-page PDF of a stored capture; `fields` as `write_case` takes them."""
        from edge_app.documents.pdf import Shot as Printed
        from edge_app.documents.pdf import write_case

        check_writable(folder)
        store = self.opened()
        # Whose it is, its own rows say: somebody else may be at work by now.
        lesion = store.lesion(capture.lesion)
        person = store.person(lesion.person)
        path = _free(folder, f"case-{capture.taken[:10]}", ".pdf")
        shot, before = (
            each and Printed(each, self.picture(each, side=4096)) for each in (capture, earlier)
        )
        with store.act("report", capture.id):
            write_case(path, shot, before, person, lesion, fields)
        return path


def _metadata(person: Person, lesion: Lesion, today: date) -> dict[str, object]:
    known: dict[str, object] = {}
    if (years := age(person, today)) is not None:
        known["age"] = years
    if person.sex:
        known["sex"] = person.sex
    known["site"] = region(lesion.view, lesion.x, lesion.y) or lesion.title
    return known


def _erased(action: Callable[[], None]) -> Erased:
    try:
        action()
    except NotWiped as error:
        return Erased(error)
    return Erased(None)


def _close(store: Store) -> None:
    try:
        store.close()
    except Exception as error:
        unforeseen.report(error)


def _same(first: dict, second: dict) -> bool:
    """Whether two analyses say the same, but for the last digits that a processor may give."""
    if (first["triage"], set(first["probabilities"])) != (
        second["triage"],
        set(second["probabilities"]),
    ):
        return False
    apart = [abs(value - second["probabilities"][n]) for n, value in first["probabilities"].items()]
    return max(apart) <= SAME


def _free(folder: Path, name: str, ending: str) -> Path:
    """A path in `folder` at which nothing lies yet."""
    path, number = folder / f"{name}{ending}", 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}{ending}"
    return path
