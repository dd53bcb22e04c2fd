"""What a bundle sees of pictures, kept by their content: a second call reads nothing again."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.bundle.manifest import OUTLIERS
from dermedge.code_hash import code_hash
from dermedge.data import Record
from dermedge.data.masks import read_lesion_mask
from dermedge.files import make_private, names_in, write_atomic
from dermedge.image.read import ImageError, Picture, read_image
from dermedge.text import printable
from export import ExportError
from export.outliers.draw import DRAWN, beside, cutting, mosaic, retaken
from export.outliers.fit import SKIN, Pictures

PIECES = 6  # pictures that a mosaic is made of
BESIDE = 2  # cuttings from beside each lesion
BATCH = 500  # pictures between two writes of the cache
_REFUSED = 1  # columns before the evidence in the cache: whether it is refused, NaN: no picture


@dataclass(frozen=True)
class Shown:
    """A picture that is to be looked at.

    group, id, again : as `Pictures` has them. files : what it is made of; their content and
    `recipe` identify it. make : gives it; None where there is none to be had.
    """

    group: str
    id: str
    files: tuple[Path, ...]
    recipe: str
    make: Callable[[Analyzer], Picture | None]
    again: bool = False

    def key(self) -> str:
        """Of what it is, whatever it is called. OSError where a file cannot be read."""
        content = [hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files]
        return hashlib.sha256("\n".join([self.recipe, *content]).encode()).hexdigest()


def without_head(bundle: Bundle) -> Bundle:
    """The bundle as it was before a head: what it refused would hide what is to be seen."""
    if OUTLIERS not in bundle.manifest.parts:
        return bundle
    parts = {name: bundle.part(name) for name in bundle.manifest.parts if name != OUTLIERS}
    with tempfile.TemporaryDirectory() as folder:
        return Bundle.open(write_bundle(Path(folder, "plain.dermbundle"), bundle.manifest, parts))


@dataclass
class Looker:
    """Looks at pictures as a device does, by one thread, and keeps what was seen in a folder.

    Nobody but its owner can read the folder; it may be deleted at any time.
    """

    bundle: Bundle
    folder: Path
    _known: dict[str, np.ndarray] = field(default_factory=dict)
    _analyzer: Analyzer | None = None

    def __post_init__(self) -> None:
        self.bundle = without_head(self.bundle)
        manifest = self.bundle.manifest
        state = {
            "graphs": {role: manifest.parts[m.part] for role, m in manifest.models.items()},
            "thresholds": str(manifest.thresholds),
            "code": code_hash("dermedge.analyzer", "export.outliers.draw", __name__),
        }
        name = hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()
        # A folder that is somebody's keeps its mode; what is stored in it is private by itself.
        if not self.folder.exists():
            make_private(self.folder)
        self._file = self.folder / f"seen-{name[:16]}.npz"
        if self._file.exists():
            with np.load(self._file) as stored:
                self._known = dict(zip(stored["keys"].tolist(), stored["rows"], strict=True))

    def look(self, shown: Sequence[Shown], note: str) -> Pictures:
        """What is seen of each that can be made; what cannot be read is named and left out.

        Raises ExportError where the classifier lacks an output that the evidence needs.
        """
        rows: list[np.ndarray] = []
        kept: list[Shown] = []
        fresh = 0
        said: set[str] = set()  # a file may be shown more than once
        for one in tqdm(shown, note, unit="picture", file=sys.stderr, disable=None):
            try:
                key = one.key()
                if key not in self._known:
                    self._known[key] = self._see(one)
                    fresh += 1
            except (ImageError, OSError) as error:
                line = printable(f"left out: {error}")
                if line not in said:
                    tqdm.write(line, file=sys.stderr)
                said.add(line)
                continue
            if fresh == BATCH:
                self._store()
                fresh = 0
            if self._known[key].size and not np.isnan(self._known[key][0]):
                kept.append(one)
                rows.append(self._known[key])
        if fresh:
            self._store()
        if not rows:
            raise ExportError(f"{note}: there is no picture that can be looked at")
        table = np.stack(rows)
        return Pictures(
            table[:, _REFUSED:],
            np.array([one.group for one in kept]),
            np.array([one.id for one in kept]),
            np.array([one.again for one in kept]),
            table[:, 0] > 0,
        )

    def _see(self, shown: Shown) -> np.ndarray:
        """Whether it is refused, and the evidence: float32 (1 + D,); (0,) of no picture."""
        if self._analyzer is None:
            self._analyzer = Analyzer(self.bundle, threads=1)
            self._analyzer.keeps_evidence = True
        picture = shown.make(self._analyzer)
        if picture is None:
            return np.zeros(0, np.float32)
        analysis = self._analyzer.analyze(picture)
        if analysis.evidence is None:
            raise ExportError(
                f"the classifier of {self.bundle.path} lacks an output that tells lesions from "
                "others: export it again"
            )
        refused = not analysis.quality.usable or analysis.unfamiliar
        return np.concatenate([[float(refused)], analysis.evidence]).astype(np.float32)

    def _store(self) -> None:
        width = max(row.size for row in self._known.values())
        nothing = np.full(width, np.nan, np.float32)
        rows = np.stack([row if row.size else nothing for row in self._known.values()])
        buffer = io.BytesIO()
        np.savez(buffer, keys=np.array(list(self._known)), rows=rows)
        write_atomic(self._file, buffer.getvalue(), private=True)


def with_lesion(records: Iterable[Record], again: bool = False) -> list[Shown]:
    """The records' pictures, or copies that are changed as by another photograph."""

    def make(record: Record) -> Callable[[Analyzer], Picture]:
        if not again:
            return lambda _: read_image(record.image)
        seed = int.from_bytes(hashlib.sha256(record.id.encode()).digest()[:4], "big")
        return lambda _: encoded(
            retaken(read_image(record.image).pixels, np.random.default_rng(seed))
        )

    return [
        Shown(
            record.source or "",
            record.id,
            (record.image,),
            f"retaken {record.id}" if again else "as it is",
            make(record),
            again,
        )
        for record in records
    ]


def outliers(training: Sequence[Sequence[Record]], count: int) -> list[Shown]:
    """Pictures without a lesion, made of `training`, records of each source, or drawn.

    BESIDE are cut from beside each lesion, where there is room beside it; of each other kind there
    are `count` in all.
    """
    shown = []
    for records in training:
        for seed in range(BESIDE * len(records)):
            record = records[seed % len(records)]
            files = (record.image, *([record.mask] if record.mask else []))
            name = f"{record.id} beside {seed}"
            kind = f"{SKIN}{record.source or ''}"
            shown.append(Shown(kind, name, files, f"beside {seed}", _beside(record, seed)))
    mixed = [record for row in zip(*training, strict=False) for record in row]
    for seed in range(count):
        for kind, draw in DRAWN.items():
            shown.append(Shown(kind, f"{kind} {seed}", (), f"{kind} {seed}", _drawn(draw, seed)))
        chosen = np.random.default_rng(seed).choice(len(mixed), PIECES)
        pieces = [mixed[int(number)].image for number in chosen]
        name = f"mosaic {seed}"
        shown.append(Shown("mosaic", name, tuple(pieces), name, _mosaic(pieces, seed)))
    return shown


def in_folder(folder: Path) -> list[Shown]:
    """Every picture of FOLDER/KIND/; ExportError where there is none."""
    return [
        Shown(file.parent.name, file.name, (file,), "as it is", _read(file))
        for file in _pictures(folder)
    ]


def cut_from(folder: Path, count: int) -> list[Shown]:
    """Cuttings of the photographs FOLDER/KIND/, `count` of each kind; ExportError without any."""
    kinds: dict[str, list[Path]] = {}
    for file in _pictures(folder):
        kinds.setdefault(f"photograph, {file.parent.name}", []).append(file)
    return [
        Shown(kind, f"{file.name} {seed}", (file,), f"cut {seed}", _cut(file, seed))
        for kind, files in kinds.items()
        for seed, file in zip(range(count), itertools.cycle(files), strict=False)
    ]


def _pictures(folder: Path) -> list[Path]:
    files = sorted(
        kind / name
        for kind in folder.glob("*")
        if kind.is_dir()
        for name in names_in(kind)
        if (kind / name).is_file()
    )
    if not files:
        raise ExportError(f"there is no KIND/PICTURE in {folder}")
    return files


def encoded(pixels: np.ndarray) -> Picture:
    """uint8 (h, w, 3) RGB as a picture that was read."""
    done, content = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))
    assert done
    return read_image(content.tobytes())


def _read(file: Path) -> Callable:
    return lambda _: read_image(file)


def _cut(file: Path, seed: int) -> Callable:
    return lambda _: encoded(cutting(read_image(file).pixels, np.random.default_rng(seed)))


def _drawn(draw: Callable[[np.random.Generator], np.ndarray], seed: int) -> Callable:
    return lambda _: encoded(draw(np.random.default_rng(seed)))


def _beside(record: Record, seed: int) -> Callable[[Analyzer], Picture | None]:
    def cut(analyzer: Analyzer) -> Picture | None:
        picture = read_image(record.image)
        size = picture.pixels.shape[1::-1]
        if record.mask is not None:
            lesion = read_lesion_mask(record.mask, *picture.pixels.shape[:2])
        else:
            lesion = analyzer.analyze(picture).full_mask()
        lesion = cv2.resize(lesion.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        # No outline, no place that is known to be beside it.
        plain = None
        if lesion.any():
            plain = beside(picture.pixels, lesion, np.random.default_rng(seed))
        return None if plain is None else encoded(plain)

    return cut


def _mosaic(pieces: Sequence[Path], seed: int) -> Callable[[Analyzer], Picture]:
    return lambda _: encoded(
        mosaic([read_image(piece).pixels for piece in pieces], np.random.default_rng(seed))
    )
