"""Copying cases into a file for another device, and taking such a file in."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from edge_app.i18n.language import Said
from edge_app.store import audit, clock, database, validation
from edge_app.store.database import KINDS, plain
from edge_app.store.erasing import Erasing
from edge_app.store.file import StoreFile
from edge_app.store.opening import build, open_copy
from edge_app.store.passphrase import strength
from edge_app.store.records import StoreError
from edge_app.store.rows import PARTS, Rows, must_exist, query
from edge_app.store.trail import Trail


class Transfer:
    """Export and import of an open store. Each method may be called from any thread."""

    def __init__(self, file: StoreFile, trail: Trail, rows: Rows, erasing: Erasing):
        self._file, self._trail, self._rows, self._erasing = file, trail, rows, erasing

    def export(self, path: Path, passphrase: str, person_id: str | None = None) -> None:
        """As `Store.export`."""
        if fault := strength(passphrase).fault:
            raise StoreError(fault, code="passphrase")

        def place(made: Path, path: Path) -> None:
            with self._file.lock:  # not while it is being closed
                self._file.must_be_open()
                database.rename(made, path)

        with self._trail.act("export", person_id or ""), database.new_file(path, place) as made:
            other = StoreFile(made, build(made, passphrase))
            with contextlib.closing(other), self._file.whole() as source, other.writing() as target:
                copy_rows((self._file, source), (other, target), person_id)

    def merge(self, path: Path, passphrase: str) -> int:
        """As `Store.merge`."""
        with self._trail.act("import"):
            with plain(path):
                if path.exists() and not path.is_file():
                    raise StoreError(database.NO_STORE, code="no-store", path=path)
                self._erasing.make_room(3 * path.stat().st_size)
            here = self._file
            with plain(here.path), database.workshop(here.path.parent, ".importing-") as folder:
                copy = folder / "store"
                with plain(path):
                    for end in ("", "-wal"):  # a store that was not closed has both
                        if not end or Path(f"{path}-wal").exists():
                            shutil.copyfile(f"{path}{end}", f"{copy}{end}")
                other = open_copy(copy, path, passphrase)
                with contextlib.closing(other), other.whole() as source, here.writing() as target:
                    added = copy_rows((other, source), (here, target), None, path)
        self._erasing.tidy()
        return added


def copy_rows(source: tuple, target: tuple, person_id: str | None, path: Path | None = None) -> int:
    """Copy rows that the target lacks, all or those of one person; returns how many captures.

    `source`, `target` : a StoreFile and a connection of it each. With `path`, of a foreign file,
    each record is judged as one that is typed in.
    """
    (file, reading), (other, writing) = source, target
    rows, others = (Rows(one, Trail(one)) for one in (file, other))
    wanted, added, lesions = None, 0, set()
    seen = audit.head(writing, other.keys).seen
    if person_id is not None:
        must_exist(reading, "person", person_id)
        wanted = {person_id}
    for table in KINDS:
        level = set()
        for number, row in enumerate(reading.execute(f"{query(table)} ORDER BY rowid"), 1):
            id, parent, _sealed = row
            file.must_be_open()
            other.must_be_open()
            if wanted is not None and (parent or id) not in wanted:
                continue
            level.add(id)
            if writing.execute(f"SELECT 1 FROM {table} WHERE id = ?", (id,)).fetchone():
                continue
            item, picture = _judged(rows, table, row, path, number, seen), None
            if table == "capture":
                query_ = "SELECT data FROM picture WHERE capture = ?"
                data = (reading.execute(query_, (id,)).fetchone() or [b""])[0]
                picture = other.keys.seal(file.keys.open(data, "picture", id), "picture", id)
                added += 1
                lesions.add(parent)
            others.insert(writing, table, item, picture)
        if wanted is not None:
            wanted = level
    others.summarise(writing, lesions)
    return added


def _judged(rows: Rows, table: str, row: tuple, path: Path | None, number: int, seen: str):
    """A record to copy; of a foreign file only one that makes sense."""
    if path is None:
        return rows.item(table, *row)
    try:
        item = rows.item(table, *row)
        validation.validate(item, clock.now(), seen)
    except StoreError as error:
        raise StoreError(
            "{path} cannot be imported, nothing was changed: {part} {number}: {reason}",
            code="import",
            path=path,
            part=Said(PARTS[table]),
            number=number,
            reason=error,
        ) from None
    return item
