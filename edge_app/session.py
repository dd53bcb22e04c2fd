"""What goes on behind the screens, without a window: who is at work, on whom, with which pictures.

A sitting is one lesion in front of the camera: its pictures give one result. It belongs to a lesion
of the store, or to nobody until it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import cv2
import numpy as np

from dermedge import UserError
from dermedge.bundle import Manifest
from dermedge.image import read_image
from dermedge.scale import write_card
from dermedge.together import Together, together
from edge_app.browser import check_writable
from edge_app.capture.worker import Capture as Shot
from edge_app.capture.worker import make_private
from edge_app.cases.history import Comparison, compare
from edge_app.cases.people import age
from edge_app.cases.store import Capture, Lesion, Person, Store
from edge_app.kiosk import LOG, Check, Pin
from edge_app.look.body_map import region
from edge_app.settings import Settings

CONSENT = 1  # version of the terms; a new one is asked for again
CASES = ".dermcases"  # the ending of what `Session.export` writes
SHOWN = 1280  # px, long side of a stored picture as the screens show it


class Session:
    """The state of one running app.

    Methods that touch the store may take a moment (they decrypt and decode): call them from a
    thread that is not the screen's. They raise UserError, of which StoreError is a kind.
    """

    def __init__(self, home: Path, manifest: Manifest, kiosk: bool = False):
        """`home` : folder of the app's own files, made private where missing."""
        make_private(home)
        self.home, self.manifest, self.kiosk = home, manifest, kiosk
        self.settings = Settings.load(home / "settings.json")
        self.pin = Pin(home / "operator.pin")
        self.store: Store | None = None
        self.operator = not kiosk  # may see people and settings
        self.agreed = not kiosk and self.settings.consent >= CONSENT
        self.person: Person | None = None
        self.lesion: Lesion | None = None
        self.shots: list[Shot] = []
        self.refused = ""  # why the last capture failed
        self.faults: list[Check] = []  # that the self-check found at start
        self.folder: Path | None = None  # that was looked through last

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
        self.settings.save(self.home / "settings.json")

    def leave(self) -> None:
        """Clear what the next person must not see. A device of one's own locks its store."""
        self.person = self.lesion = None
        self.shots, self.refused = [], ""
        if self.kiosk:
            self.agreed = self.operator = False
        else:
            self.lock()

    def enter(self, pin: str) -> None:
        """The operator of a kiosk; raises WrongPin."""
        self.pin.check(pin)
        self.operator = True

    # ------------------------------------------------------------------------ the store

    @property
    def store_path(self) -> Path:
        return self.home / "cases.db"

    @property
    def log_path(self) -> Path:
        """A kiosk's log."""
        return self.home / LOG

    def create(self, passphrase: str) -> None:
        self.store = Store.create(self.store_path, passphrase)

    def unlock(self, passphrase: str) -> None:
        self.store = Store.open(self.store_path, passphrase)

    def lock(self) -> None:
        store, self.store = self.store, None
        if store is not None:
            store.close()

    def opened(self) -> Store:
        """The store; UserError where it is locked."""
        if self.store is None:
            raise UserError("The cases are locked.")
        return self.store

    def save_person(self, person: Person) -> Person:
        """Add it where it has no id yet, else change it; it is at work afterwards."""
        if person.id:
            self.opened().update_person(person)
            self.person = person
        else:
            self.person = self.opened().add_person(person)
        return self.person

    def save_lesion(self, lesion: Lesion) -> Lesion:
        """The same for a lesion."""
        if lesion.id:
            self.opened().update_lesion(lesion)
            self.lesion = lesion
        else:
            self.lesion = self.opened().add_lesion(lesion)
        return self.lesion

    def delete_person(self) -> None:
        self.opened().delete_person(self.person.id)
        self.person = self.lesion = None

    def delete_lesion(self) -> None:
        self.opened().delete_lesion(self.lesion.id)
        self.lesion = None

    def due(self, today: date) -> list[tuple[Lesion, Person]]:
        """Lesions that are to be photographed again by today, the longest due first."""
        store = self.opened()
        return [(one, store.person(one.person)) for one in store.reminders(today.isoformat())]

    def change_passphrase(self, old: str, new: str) -> None:
        """Raises WrongKey."""
        self.opened().change_key(old, new)

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
        self.shots, self.lesion, self.refused = [], lesion, ""

    def take(self, shot: Shot) -> None:
        """One more picture of the sitting's lesion."""
        self.shots.append(shot)

    @property
    def saved(self) -> bool:
        """Whether all of the sitting is on disk."""
        return bool(self.shots) and all(shot.saved for shot in self.shots)

    def together(self) -> Together | None:
        """What the pictures of the sitting say; None for a single one, which says it itself."""
        if len(self.shots) < 2:
            return None
        return together([shot.analysis for shot in self.shots], self.manifest)

    def keep(self, lesion: Lesion) -> None:
        """Save the sitting's pictures that belong to nobody under a lesion, a new one, too."""
        store = self.opened()
        kept = lesion if lesion.id else store.add_lesion(lesion)
        try:
            for number, shot in enumerate(self.shots):
                if not shot.saved:
                    self.shots[number] = self._keep(shot, kept)
        except UserError:
            if not lesion.id and not any(shot.saved for shot in self.shots):
                store.delete_lesion(kept.id)  # or the next try would add another
            raise
        self.lesion = kept

    def _keep(self, shot: Shot, lesion: Lesion) -> Shot:
        scale = (shot.analysis["scale"] or {}).get("px_per_mm")
        record = Capture("", lesion.id, "", shot.analysis, tuple(shot.analysis["size"]), scale)
        return replace(shot, record=self.opened().add_capture(record, shot.png), png=b"")

    def metadata(self, today: date) -> dict[str, object]:
        """Of the person and lesion at work, as `Analyzer.analyze` takes it."""
        known: dict[str, object] = {}
        if self.person is not None and self.lesion is not None:
            if (years := age(self.person, today)) is not None:
                known["age"] = years
            if self.person.sex:
                known["sex"] = self.person.sex
            lesion = self.lesion
            known["site"] = region(lesion.view, lesion.x, lesion.y) or lesion.title
        return known

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
        """The printable size card, on one of dermedge.scale.PAPERS."""
        check_writable(folder)
        path = _free(folder, f"size-card-{paper}", ".pdf")
        write_card(path, paper)
        return path

    def write_document(
        self, folder: Path, capture: Capture, earlier: Capture | None, fields: Sequence[str]
    ) -> Path:
        """The one-page PDF of a stored capture; `fields` as `write_case` takes them."""
        from edge_app.cases.document import Shot as Printed
        from edge_app.cases.document import write_case

        check_writable(folder)
        path = _free(folder, f"case-{capture.taken[:10]}", ".pdf")
        shot, before = (
            each and Printed(each, self.picture(each, side=4096)) for each in (capture, earlier)
        )
        with self.opened().act("report", capture.id):
            write_case(path, shot, before, self.person, self.lesion, fields)
        return path


def _free(folder: Path, name: str, ending: str) -> Path:
    """A path in `folder` at which nothing lies yet."""
    path, number = folder / f"{name}{ending}", 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}{ending}"
    return path
