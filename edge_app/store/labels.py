"""What a person confirmed of a picture for training, and who allowed that, in an open store.

Each lies sealed in a row of the table `store`, so that the schema stays as it is. It is this
device's: a file of cases for another device does not hold it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from sqlite3 import Connection

from edge_app.i18n.language import N_
from edge_app.store import clock
from edge_app.store.basics import text
from edge_app.store.file import StoreFile
from edge_app.store.records import RECORD, StoreError
from edge_app.store.rows import must_exist
from edge_app.store.trail import Trail

CONFIRMED, CANNOT_TELL, BAD_PICTURE = "confirmed", "cannot tell", "bad picture"
VERDICTS = (CONFIRMED, CANNOT_TELL, BAD_PICTURE)
ROLES = ("dermatologist", "nurse")
MOST_POINTS, NAME = 2000, 200  # of an outline; characters
HISTORY = 20  # labels of one picture that are kept

Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Label:
    """What somebody said of one picture. `outline` : px of the whole upright picture."""

    verdict: str  # of VERDICTS
    diagnosis: str  # of dermedge.taxonomy.CLASSES; empty unless CONFIRMED
    outline: tuple[Polygon, ...]  # empty: none was confirmed
    by: str
    role: str  # of ROLES
    model: str  # SHA-256 of the bundle whose proposal was seen
    when: str = ""  # ISO 8601, UTC; the store fills it in


@dataclass(frozen=True)
class Permission:
    """That a person allowed the use of their pictures for training."""

    by: str  # who entered it
    when: str = ""  # ISO 8601, UTC; the store fills it in


class Labels:
    """Labels and permissions of an open store. Each method may be called from any thread."""

    def __init__(self, file: StoreFile, trail: Trail):
        self._file, self._trail = file, trail

    def permission(self, person: str) -> Permission | None:
        found = self._file.setting(f"training {person}")
        try:
            return None if found is None else Permission(**found)
        except TypeError:
            raise StoreError(RECORD, code="record") from None

    def allow(self, person: str, by: str) -> None:
        """Enter that a person allowed it."""
        _refuse(text(by, NAME, N_("who enters it is missing")))
        with self._file.writing() as connection:
            must_exist(connection, "person", person)
            permission = asdict(Permission(by, clock.now()))
            self._file.keep_setting(connection, f"training {person}", permission)
            self._trail.log(connection, "allow training", person)

    def forbid(self, person: str) -> None:
        """Take it back: labels stay sealed here, and are exported no more."""
        with self._file.writing() as connection:
            must_exist(connection, "person", person)
            connection.execute("DELETE FROM store WHERE name = ?", (f"training {person}",))
            self._trail.log(connection, "forbid training", person)

    def of(self, capture: str) -> Label | None:
        """The newest label of a capture."""
        history = self._history(capture)
        return history[-1] if history else None

    def add(self, capture: str, label: Label) -> Label:
        """Save a label, as it is kept; StoreError for one that makes no sense, nothing changed."""
        _refuse(_faults(label))
        kept = Label(**{**vars(label), "when": clock.now()})
        with self._file.writing() as connection:
            must_exist(connection, "capture", capture)
            history = [*self._history(capture, connection), kept][-HISTORY:]
            self._keep(connection, capture, history)
            self._trail.log(connection, "add-label", capture)
        return kept

    def undo(self, capture: str, label: Label) -> None:
        """Take a label, as `add` kept it, back; another's stays, whoever was the last."""
        with self._file.writing() as connection:
            history = self._history(capture, connection)
            if label not in history:
                return  # it went with its picture
            history.remove(label)
            if history:
                self._keep(connection, capture, history)
            else:
                connection.execute("DELETE FROM store WHERE name = ?", (f"label {capture}",))
            self._trail.log(connection, "undo-label", capture)

    def _history(self, capture: str, writing: Connection | None = None) -> list[Label]:
        """`writing` as `StoreFile.setting` takes it."""
        try:
            return [
                Label(**{**one, "outline": _tuples(one["outline"])})
                for one in self._file.setting(f"label {capture}", writing) or []
            ]
        except (TypeError, KeyError):
            raise StoreError(RECORD, code="record") from None

    def _keep(self, connection, capture: str, history: list[Label]) -> None:
        kept = [asdict(one) for one in history]
        self._file.keep_setting(connection, f"label {capture}", kept)


def remove(connection, table: str, id: str) -> None:
    """What is kept here of a row that is being deleted goes with it."""
    name = {"capture": f"label {id}", "person": f"training {id}"}.get(table)
    if name:
        connection.execute("DELETE FROM store WHERE name = ?", (name,))


def _refuse(faults: Iterator[str]) -> None:
    for words in faults:
        raise StoreError(words, code="invalid")


def _faults(label: Label) -> Iterator[str]:
    from dermedge.taxonomy import CLASSES

    if label.verdict not in VERDICTS or label.role not in ROLES:
        yield N_("a label of an unknown kind")
    confirmed = label.verdict == CONFIRMED
    if confirmed != (label.diagnosis in CLASSES) or (not confirmed and label.diagnosis):
        yield N_("a label needs a class, or says that nobody could say which")
    yield from text(label.by, NAME, N_("who labels is missing"))
    points = [point for polygon in label.outline for point in polygon]
    short = any(len(polygon) < 3 for polygon in label.outline)
    if short or len(points) > MOST_POINTS or (points and not confirmed):
        yield N_("an outline has three points at least, and only of a picture that is confirmed")
    if not all(0 <= side < 100_000 for point in points for side in point):
        yield N_("an outline lies off the picture")


def _tuples(outline: list) -> tuple[Polygon, ...]:
    return tuple(tuple((float(x), float(y)) for x, y in polygon) for polygon in outline)
