"""Tables as people and spreadsheets write them, read whole or refused with the line at fault."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from dermedge.data.records import DataError, short

DELIMITERS = ",;\t|"
# Letters that are the same in Latin-1, Latin-9 and Windows-1252, 1250 and 1254: a file whose only
# other bytes are these reads the same in all of them. A Turkish "ı" is elsewhere a "ý".
_SAME_LETTERS = frozenset("áâäçéëíîóôöúüßÁÂÄÇÉËÍÎÓÔÖÚÜ".encode("latin-1"))
_FIRST = 1 << 16  # bytes or letters within which a header ends
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # its marks
_UTF8 = "save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')"


@dataclass(frozen=True)
class Row:
    """One row: its cells by column name, '' where empty, and the line of the file it begins on."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table as read.

    columns : names in lower case, spaces and hyphens as underscores, in the order of the file.
    rows : those with a cell that is not empty.
    positions : of each row, its number counted from 0 over all lines below the header, empty
        rows and blank lines too.
    blank : such positions of empty rows and blank lines before the last row.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    positions: tuple[int, ...] = ()
    blank: tuple[int, ...] = ()

    def need(self, *columns: str) -> None:
        """DataError where a column is missing; it names those that there are."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise DataError(
                "{path}: no column '{missing}'; it has: {columns}",
                code="table_column_missing",
                path=self.path,
                missing=", ".join(missing),
                columns=short(", ".join(self.columns), 300),
            )

    def where(self, row: Row) -> str:
        """File and line of a row, for messages."""
        return f"{self.path.name} line {row.line}"


def read_table(
    path: Path,
    header: tuple[str, ...] = (),
    first_cell: str = "",
    keep: Collection[str] | None = None,
) -> Table:
    """Read a table: comma, semicolon, tab or bar; UTF-8 with or without a mark, UTF-16 with one.

    Latin-1 is read where all its bytes are letters that mean the same in the related encodings.
    A file whose first cell matches `first_cell` has no header line; `header` then names its
    columns. Rows hold the cells of the columns in `keep`, by default of all.

    Raises
    ------
    DataError : not a table, of an unknown encoding, with a row that has more or fewer cells than
        the header, with two columns of one name, or without rows; one line, with file and line.
    """
    return _parse(path, read_text(path), header, first_cell, keep)


def columns_of(path: Path) -> frozenset[str]:
    """The column names of a table; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(_FIRST)
        # Half a letter at the end, or one of another encoding, does not matter here.
        first = data.decode("utf-16" if data[:2] in _UTF16 else "utf-8-sig", "replace")
        lines = _lines(path, first.replace("\0", ""))
        cells = next((cells for _, cells in lines if any(cells)), [])
    except (OSError, DataError):
        return frozenset()
    return frozenset(map(column_name, cells)) - {""}


def column_name(text: str) -> str:
    """'Lesion ID' and 'lesion-id' are 'lesion_id'."""
    return re.sub(r"[\s_-]+", "_", text.strip().lower()).strip("_")


def read_text(path: Path) -> str:
    """The text of a table or list, as `decode` gives it."""
    return decode(path, _bytes(path))


def decode(path: Path, data: bytes) -> str:
    """The text of a table or list. DataError where its encoding is not certain."""
    if data[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        raise _refused(path, "is UTF-32")
    try:
        text = data.decode("utf-16" if data[:2] in _UTF16 else "utf-8-sig")
    except UnicodeDecodeError:
        others = [byte for byte in data if byte >= 0x80]
        pairs = re.search(rb"[\x80-\xff]{2}", data)
        if data[:2] in _UTF16 or pairs or not _SAME_LETTERS.issuperset(others):
            raise _refused(path, "is not UTF-8, and its encoding is not certain") from None
        text = data.decode("latin-1")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise _refused(path, f"holds a null byte in line {line}")
    return text


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            "{path}: {reason}", code="table_unreadable", path=path, reason=error.strerror or "error"
        ) from error


def _refused(path: Path, why: str) -> DataError:
    return DataError(
        "{path}: {why}; " + _UTF8, code="table_encoding", path=short(str(path), 200), why=why
    )


def _declared_delimiter(line: str) -> str | None:
    """Excel's first line 'sep=;'."""
    match = re.fullmatch(r"\"?sep=([,;\t|])\"?\s*", line, re.IGNORECASE)
    return match.group(1) if match else None


def _delimiter(text: str) -> str:
    # A quoted cell may go on over several lines, as of a spreadsheet's header.
    bare = re.sub(r'(^|[,;\t|])"(?:[^"]|"")*"', r'\1""', text[:_FIRST], flags=re.MULTILINE)
    line = next((line for line in bare.splitlines() if line.strip()), "")
    return max(DELIMITERS, key=re.sub(r'"[^"]*"', "", line).count)


def _lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Cells of each line, blank ones as [], with the number of the line on which it begins."""
    skipped = 0
    first, _, rest = text.partition("\n")
    delimiter = _declared_delimiter(first)
    if delimiter:
        text, skipped = rest, 1
    else:
        delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1 + skipped
        try:
            yield line, [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                "{path} line {line}: not a readable table ({reason}); a quote must enclose a "
                "whole cell, and be doubled inside of it",
                code="table_quotes",
                path=path,
                line=line,
                reason=error,
            ) from error


def _parse(
    path: Path,
    text: str,
    header: tuple[str, ...],
    first_cell: str,
    keep: Collection[str] | None,
) -> Table:
    lines = _lines(path, text)
    first = next(((number, cells) for number, cells in lines if any(cells)), None)
    if first is None:
        raise DataError("{path}: the table is empty", code="table_empty", path=path)
    number, cells = first
    pending = [first] if header and re.fullmatch(first_cell, cells[0], re.IGNORECASE) else []
    names = list(header) if pending else [column_name(cell) for cell in cells]
    while names and not names[-1] and not pending:
        names.pop()  # a spreadsheet ends lines with empty cells
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(
            "{path} line {line}: two columns are called '{name}'; remove or rename one",
            code="table_column_twice",
            path=path,
            line=number,
            name=short(twice[0]),
        )
    rows, positions, blank = [], [], []
    for position, (line, cells) in enumerate([*pending, *lines]):
        if not any(cells):
            blank.append(position)
            continue
        while len(cells) > len(names) and not cells[-1]:
            cells.pop()
        if len(cells) != len(names):
            raise _ragged(path, line, cells, names)
        pairs = zip(names, cells, strict=True)
        rows.append(Row(line, {k: v for k, v in pairs if keep is None or k in keep}))
        positions.append(position)
    if not rows:
        raise DataError(
            "{path}: the table has a header ({columns}) and no rows",
            code="table_without_rows",
            path=path,
            columns=short(", ".join(names), 300),
        )
    blank = [position for position in blank if position < positions[-1]]
    return Table(path, tuple(names), tuple(rows), tuple(positions), tuple(blank))


def _ragged(path: Path, line: int, cells: list[str], names: list[str]) -> DataError:
    more = len(cells) > len(names)
    advice = "a cell with a comma needs quotes" if more else "the line is cut short"
    return DataError(
        "{path} line {line}: {found} cells, the header names {expected}; {advice}",
        code="table_ragged",
        path=path,
        line=line,
        found=len(cells),
        expected=len(names),
        advice=advice,
    )
