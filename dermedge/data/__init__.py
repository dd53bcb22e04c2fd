"""Readers of public skin image data sets, and their frozen splits. No torch: devices use it too."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from dermedge.data.joint import BETWEEN, join, reader_name
from dermedge.data.readers import READERS, Reader
from dermedge.data.records import PARTS, DataError, DataSet, Record
from dermedge.data.split import Split, make_split

__all__ = [
    "PARTS",
    "READERS",
    "DataError",
    "DataSet",
    "Reader",
    "Record",
    "Split",
    "load",
    "load_sources",
    "make_split",
    "parse_source",
    "reader_of",
    "report_lines",
]


def load(name: str, path: str | Path) -> DataSet:
    """Read the data set `name` (see READERS; 'HAM10000' and 'pad-ufes-20' work too) under `path`.

    A joint set, as `dermedge.data.joint.join` calls it, has its names and its paths in one.
    Only lists files and reads tables: no picture is opened. No table can name a file outside of
    `path`; links that lie in it are followed. DataError where the folder does not have the
    layout; what merely is amiss in single rows or files goes into `DataSet.problems`.
    """
    if BETWEEN not in name:
        return reader_of(name).read(Path(path))
    keys, places = name.split(BETWEEN), str(path).split(os.pathsep)
    if len(keys) != len(places):
        raise DataError(f"'{name}' needs {len(keys)} folders, got {len(places)}")
    pairs = zip(keys, places, strict=True)
    return join([reader_of(reader_name(key)).read(Path(place)) for key, place in pairs])


def report_lines(data_set: DataSet, most: int = 3) -> list[str]:
    """What was missing, not used or not understood, for whoever is about to use the data set."""
    lines = [f"{data_set.name}: {line}" for line in data_set.problems[:most]]
    if len(data_set.problems) > most:
        more = len(data_set.problems) - most
        lines.append(f"{data_set.name}: ... and {more} more problems (`dermedge data check`)")
    return [*lines, *(f"{data_set.name}: {line}" for line in data_set.notes)]


def parse_source(text: str) -> tuple[str, Path]:
    """Split 'NAME=PATH' of the command line. DataError where it is not that, or NAME unknown."""
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise DataError(f"'{text}' is not NAME=PATH, for example ham10000=data/HAM10000")
    return reader_of(name.strip()).name, Path(path).expanduser()


def load_sources(texts: Sequence[str]) -> list[DataSet]:
    """The data sets of several 'NAME=PATH', in their order. DataError as of both, or for one twice.

    A set that is given twice would be learnt twice as often, and be "another clinic's" to itself.
    """
    sources = [parse_source(text) for text in texts]
    places = [(name, path.resolve()) for name, path in sources]
    for text, place in zip(texts, places, strict=True):
        if places.count(place) > 1:
            raise DataError(f"{text} is given twice: give each data set once")
    return [load(*source) for source in sources]


def reader_of(name: str) -> Reader:
    """The reader called `name`, whatever its case and its '-', '_' or blanks."""
    wanted = _bare(name)
    for reader in READERS.values():
        if _bare(reader.name) == wanted:
            return reader
    raise DataError(f"no reader for '{name}'; there are: {', '.join(READERS)}")


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
