"""Many pictures to one JSON object each: in this process, or as actors of Ray Data.

Both run the same `Analyzer`, so that their objects differ in nothing but `timing_ms`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dermedge import UserError
from dermedge.analysis import Analysis
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.cluster import EXTRA
from dermedge.files import write_atomic
from dermedge.image.header import ImageError
from dermedge.image.opencv import short_of_memory
from dermedge.image.read import (
    EXTENSIONS,
    OTHER_EXTENSIONS,
    check_bytes,
    find_images,
    find_other_pictures,
    looks_like_picture,
)
from dermedge.runtime import ExecutionConfig, SessionError


@dataclass(frozen=True)
class Options:
    """How every picture of a batch is analysed; as `Analyzer` and `Analyzer.analyze` take them."""

    threads: int = 0
    views: int = 1
    executions: Mapping[str, ExecutionConfig] = field(default_factory=dict)
    px_per_mm: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None

    def analyzer(self, bundle: Bundle) -> Analyzer:
        """One with these options; an analyzer serves one thread at a time."""
        return Analyzer(bundle, self.threads, self.views, dict(self.executions))

    def outcome(self, analyzer: Analyzer, source: str) -> tuple[dict[str, Any], Analysis | None]:
        """A picture's analysis and its JSON; {"image", "error"} where there is none."""
        try:
            with short_of_memory():
                analysis = analyzer.analyze(
                    content_of(source),
                    source,
                    px_per_mm=self.px_per_mm,
                    metadata=self.metadata,
                    reference=self.reference,
                )
        except (ImageError, SessionError, OSError, MemoryError) as error:
            reason = " ".join(str(error).split()) or "not enough memory for this picture"
            return {"image": source, "error": reason}, None
        return analysis.to_json(), analysis

    def to_json(self) -> dict[str, Any]:
        """All that changes a result; the number of threads does not."""
        return {
            "views": self.views,
            "executions": {
                role: str(replace(config, threads=1))
                for role, config in sorted(self.executions.items())
            },
            "px_per_mm": self.px_per_mm,
            "metadata": dict(self.metadata),
            "reference": self.reference,
        }


def find_sources(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Expand folders and addresses of object stores ("s3://bucket/folder") to their pictures.

    Those of kinds that are not read come second. Raises UserError where an address cannot be
    listed or holds no picture.
    """
    sources: dict[str, None] = {}
    others: dict[str, None] = {}
    for name in names:
        if _is_address(name):
            pictures, left_out = _listed(name)
        else:
            pictures = list(map(str, find_images([name])))
            left_out = list(map(str, find_other_pictures([name])))
        sources |= dict.fromkeys(pictures)
        others |= dict.fromkeys(left_out)
    return list(sources), list(others)


def _is_address(name: str) -> bool:
    return "://" in name


def stem(source: str) -> str:
    """The name of a picture without its folder and ending; of an address without its options."""
    return Path(source.partition("?")[0] if _is_address(source) else source).stem


def exists(source: str) -> bool:
    """Whether a picture's name is one that is there; of an address that is not known: True."""
    return _is_address(source) or os.path.lexists(source)


# What a path of an address holds as it is; all else would end it, or be read as another name.
_PLAIN = "/!$&'()*+,;=:@"


def _listed(address: str) -> tuple[list[str], list[str]]:
    try:
        from pyarrow import fs
    except ImportError:
        raise UserError(f"{address}: an object store {EXTRA}") from None
    try:
        system, path = fs.FileSystem.from_uri(address)
        if system.get_file_info(path).type == fs.FileType.File:
            return [address], []
        files = system.get_file_info(fs.FileSelector(path, recursive=True))
    except (OSError, ValueError) as error:
        raise UserError(f"{address}: {' '.join(str(error).split())}") from None
    names = [file.path[len(path.rstrip("/")) :] for file in files if file.is_file]
    visible = sorted(name for name in names if "/." not in name)
    folder, mark, query = address.partition("?")
    found, others = (
        [
            f"{folder.rstrip('/')}{quote(name, safe=_PLAIN)}{mark}{query}"
            for name in visible
            if looks_like_picture(name.rpartition("/")[2], extensions)
        ]
        for extensions in (EXTENSIONS, OTHER_EXTENSIONS)
    )
    if not found and not others:
        raise UserError(f"no pictures in {address}")
    return found, others


def content_of(source: str) -> str | bytes:
    """What `Analyzer.analyze` takes: a path as it is, the bytes behind an address.

    ImageError where these are too many: an archive may hold scans of several GB.
    """
    if not _is_address(source):
        return source
    from pyarrow import fs

    system, path = fs.FileSystem.from_uri(source)
    check_bytes(system.get_file_info(path).size or 0)  # None of what is not there
    with system.open_input_stream(path) as stream:
        content: bytes = stream.read()
    return content


def in_actor(bundle: Bundle, options: Options) -> Callable[[str], dict[str, Any]]:
    """The row of a source by an analyzer of its own, for `dermedge.cluster.on_ray`."""
    analyzer = options.analyzer(bundle)

    def row(source: str) -> dict[str, Any]:
        return options.outcome(analyzer, source)[0]

    return row


class Results:
    """A file of one JSON line a picture, which an interrupted run goes on with.

    Beside it, `FILE.options.json` says what was run, and on which files: lines of another bundle,
    of other options, or of the same names in another folder are not mixed. Pictures that failed
    are tried again, and those whose file is another one since. One process at a time writes to it.

    Of an archive the lines are more than memory holds: `places` has where that of each picture
    begins.
    """

    def __init__(self, path: Path, bundle: Bundle, options: Options, sources: Sequence[str] = ()):
        """`sources` : what will be analysed; which files they are is stated before, for a kill.

        Raises UserError where the file holds something else, or results of other options.
        """
        # A pipe would be read for what a stopped run left, without end.
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no file: name one, or use --json, which prints the lines")
        self.path = path
        self._stated = path.with_name(f"{path.name}.options.json")
        self._options = {"bundle_sha256": bundle.sha256, **options.to_json()}
        before: dict[str, Any] = {}
        if path.exists() and path.stat().st_size:
            before = self._check(json.loads(json.dumps(self._options)))
        written = path.stat().st_mtime if path.exists() else 0.0
        found = {row["image"]: place for place, row in self._read() if "error" not in row}
        self._check_folder(before.get("folder"), found)
        files = before.get("files", {})
        found = {
            name: place
            for name, place in found.items()
            if _unchanged(name, files.get(name), written)
        }
        now = {name: _file_of(name) for name in sources}
        self._files = {name: file for name, file in now.items() if file is not None}
        self._files |= {name: files[name] for name in found if name in files}
        self._state()
        self.places: dict[str, int] = {}
        self._end = 0
        write_atomic(path, self._kept(found))
        self._file = path.open("ab", buffering=0)

    def _kept(self, found: Mapping[str, int]) -> Iterator[bytes]:
        """The lines that stand at these places of the file that was there."""
        if not found:
            return
        with self.path.open("rb") as file:
            for name, place in found.items():
                file.seek(place)
                line = file.readline()
                self._count(name, line)
                yield line

    def _count(self, name: str, line: bytes) -> None:
        self.places[name] = self._end
        self._end += len(line)

    def row(self, name: str) -> dict[str, Any]:
        """The result of a picture that has one."""
        with self.path.open("rb") as file:
            file.seek(self.places[name])
            row: dict[str, Any] = json.loads(file.readline())
        return row

    def _state(self) -> None:
        stated = {**self._options, "folder": _folder(), "files": self._files}
        write_atomic(self._stated, json.dumps(stated, indent=2, sort_keys=True) + "\n")

    def _check(self, stated: dict[str, Any]) -> dict[str, Any]:
        """What `FILE.options.json` says. UserError where that is of something else."""
        try:
            before: dict[str, Any] = json.loads(self._stated.read_text(encoding="utf-8"))
            different = [key for key in stated if before.get(key) != stated[key]]
            if not isinstance(before.get("files", {}), dict):
                raise ValueError
        except (OSError, ValueError, AttributeError):
            raise UserError(
                f"{self.path} exists, and {self._stated.name}, which says how its lines were "
                "made, cannot be read: name another file, or delete this one"
            ) from None
        if different:
            raise UserError(
                f"{self.path} holds results of another {' and '.join(different)}: "
                "name another file, or delete this one"
            )
        return before

    def _check_folder(self, folder: object, names: Iterable[str]) -> None:
        """UserError where names within the working folder were of another one."""
        if folder in (None, _folder()):
            return
        if any(not (_is_address(name) or os.path.isabs(name)) for name in names):
            raise UserError(
                f"{self.path} holds results of pictures in {folder}, where they may be others than "
                "here: run it there, or name another file"
            )

    def _read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Where each whole line begins, and what it holds; the last may be cut off."""
        if not self.path.exists():
            return
        place = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield place, self._parsed(line, number)
                place += len(line)

    def _parsed(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row: dict[str, Any] = json.loads(line)
            known = isinstance(row["image"], str)
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise UserError(
                f"{self.path}, line {number}: no result of `dermedge analyze`; "
                "name another file, or delete this one"
            )
        return row

    def add(self, row: dict[str, Any]) -> None:
        """Append a result; the operating system has it when this returns.

        UserError where the file is another one now: what is written into it would be lost.
        OSError, which names the file: it cannot be written.
        """
        line = _line(row).encode()
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        if not self._is_own():
            raise UserError(
                f"{self.path} was replaced or taken away while results were written to it, by "
                "another run perhaps: give each run a file of its own"
            )
        self._count(row["image"], line)
        file = _file_of(row["image"])
        if file is not None:
            self._files[row["image"]] = file

    def _is_own(self) -> bool:
        if os.name == "nt":  # where no open file is replaced
            return True
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Bring the lines onto the disk and close the file."""
        with self._file:
            os.fsync(self._file.fileno())
            if self._is_own():
                self._state()


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was deleted, and no name lies in it
        return None


def _unchanged(source: str, known: object, written: float) -> bool:
    """Whether a file is the one that was analysed, as far as that is known."""
    file = _file_of(source)
    if file is None:
        return True
    if known is not None:
        return known == file
    # Of a run by an earlier version that was killed. Not the last change, whose time is that of
    # the camera's clock.
    return file[2] <= written * 1e9


def _file_of(source: str) -> list[int] | None:
    """Size and times of a file: clocks that are wrong give it others than another one has.

    None of an address, or of what is no longer there.
    """
    try:
        status = os.stat(source)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
