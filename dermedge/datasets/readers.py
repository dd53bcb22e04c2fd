"""One reader per data set, for the layout in which its publisher hands it out.

A reader finds its table or folder anywhere below the path that it is given, so that the folder
above works as well as the data set's own. Add a data set by writing a function that fills a
`_Gathering` and listing it in READERS; the contract test then runs it.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dermedge.datasets.records import DataError, DataSet, Record
from dermedge.procedural import MARKER
from dermedge.taxonomy import MALIGNANT, to_class

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".heif"})
_UNSTATED = frozenset({"", "unknown", "na", "n/a", "nan", "none", "null", "unk"})
_SEXES = {"male": "male", "m": "male", "female": "female", "f": "female"}
_SKIN_TYPES = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6}
_PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_FLAGS = {
    **dict.fromkeys(("malignant", "true", "1", "1.0", "yes"), True),
    **dict.fromkeys(("benign", "false", "0", "0.0", "no"), False),
}
_MASK_ENDINGS = ("_segmentation", "_mask", "mask")
_ISIC_ID = re.compile(r"isic_\d+(_downsampled)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Reader:
    """How to read one data set. `layout` says in words what is looked for under the path."""

    name: str
    title: str
    licence: str
    layout: str
    gather: Callable[[_Gathering], None]
    procedural: bool = False

    def read(self, path: Path) -> DataSet:
        """Read the data set under `path`; see `dermedge.datasets.load`."""
        gathering = _Gathering(self, path)
        self.gather(gathering)
        return gathering.finish()


class _Gathering:
    """The files under one path, and the records and problems found so far."""

    def __init__(self, reader: Reader, path: Path):
        self.reader = reader
        self.table_path: Path | None = None
        path = Path(os.path.abspath(path))
        if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
            path, self.table_path = path.parent, path
        if not path.is_dir():
            raise DataError(f"{path}: no such folder (reading it as {reader.name})")
        self.root = path
        self.files = sorted(_walk(path), key=lambda file: (len(file.parts), str(file)))
        self.records: dict[str, Record] = {}
        self.problems: list[str] = []
        self.same: list[tuple[str, str]] = []
        self.procedural = reader.procedural
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for file in self.files:
            if file.suffix.lower() in PICTURES:
                self._by_stem[file.stem.lower()].append(file)

    def unfit(self, detail: str = "") -> DataError:
        looked_for = f"{self.root}: not the layout of {self.reader.name}: {detail or 'not found'}"
        return DataError(f"{looked_for}; looked for {self.reader.layout}")

    def tables(self, pattern: str) -> list[Path]:
        """Files whose name matches `pattern` (any case), the ones nearest to the root first."""
        match = re.compile(pattern, re.IGNORECASE).fullmatch
        return [file for file in self.files if match(file.name)]

    def table(self, pattern: str, what: str) -> Path:
        found = self.tables(pattern)
        if not found:
            raise self.unfit(f"no {what}")
        return found[0]

    def pictures(self, folder: str) -> dict[str, Path]:
        """Stem to picture, for pictures anywhere below a folder whose name matches `folder`."""
        match = re.compile(folder, re.IGNORECASE).fullmatch
        found: dict[str, Path] = {}
        for file in self.files:
            if file.suffix.lower() in PICTURES:
                inner = file.relative_to(self.root).parts[:-1]
                if any(match(name) for name in (self.root.name, *inner)):
                    found.setdefault(file.stem, file)
        return found

    def picture(self, stem: str, near: Path | None = None) -> Path | None:
        """The picture with this stem (any case), below the folder `near` if it lies there."""
        found = self._by_stem.get(stem.lower(), [])
        if near is not None:
            found = sorted(found, key=lambda file: not file.is_relative_to(near))
        return found[0] if found else None

    def written_path(self, base: Path, text: str, where: str) -> Path | None:
        """A path as a table states it, relative to `base`; never outside of the root."""
        text = text.replace("\\", "/")
        path = Path(os.path.normpath(base / text)) if "\0" not in text else base
        if not path.is_relative_to(self.root) or path == base:
            self.problems.append(f"{where}: the path '{_short(text)}' leaves the data set; ignored")
            return None
        if path.is_file():
            return path
        # Tables written on Windows or macOS may differ from the file in case.
        for file in self._by_stem.get(path.stem.lower(), []):
            if str(file).lower() == str(path).lower():
                return file
        self.problems.append(f"{where}: missing file {_short(text)}")
        return None

    def add(
        self,
        name: str,
        image: Path | None,
        *,
        where: str = "",
        mask: Path | None = None,
        diagnosis: str | None = None,
        label: str | None = None,
        malignant: str | bool | None = "",
        lesion: str | None = "",
        patient: str | None = "",
        age: str | None = "",
        sex: str | None = "",
        site: str | None = "",
        skin_type: str | None = "",
        licence: str | None = "",
        official: str | None = None,
    ) -> None:
        """Turn the cells of one row into a record, or into a problem."""
        where = _short(where or name)
        if image is None:
            self.problems.append(f"{where}: its picture is missing")
            return
        if name in self.records:
            self.problems.append(f"{where}: {_short(name)} is listed more than once; first kept")
            return
        diagnosis = _stated(diagnosis)
        if label is None and diagnosis is not None:
            label = to_class(diagnosis)
        if label not in (None, "other"):
            malignant = label in MALIGNANT
        elif not isinstance(malignant, bool):
            # Some copies have nothing but "benign" and "malignant" as diagnosis.
            words = (malignant or "", diagnosis or "")
            known = [_FLAGS[w.strip().lower()] for w in words if w.strip().lower() in _FLAGS]
            malignant = known[0] if known else None
        self.records[name] = Record(
            id=name,
            image=image,
            mask=mask,
            diagnosis=diagnosis,
            label=label,
            malignant=malignant,
            lesion_id=_stated(lesion),
            patient_id=_stated(patient),
            age=self._age(age, where),
            sex=self._one_of(_SEXES, sex, "sex", where),
            site=_stated(site),
            skin_type=self._skin_type(skin_type, where),
            licence=_stated(licence) or self.reader.licence,
            official=official,
        )

    def finish(self) -> DataSet:
        if not self.records:
            first = f" ({self.problems[0]})" if self.problems else ""
            raise self.unfit(f"no picture found{first}")
        return DataSet(
            name=self.reader.name,
            root=self.root,
            records=tuple(self.records.values()),
            problems=tuple(self.problems),
            licence=self.reader.licence,
            procedural=self.procedural,
            same=tuple(pair for pair in self.same if self.records.keys() >= set(pair)),
        )

    def _age(self, text: str | None, where: str) -> float | None:
        text = _stated(text)
        if text is None:
            return None
        try:
            age = float(text)
        except ValueError:
            age = -1.0
        if not 0 <= age <= 120:
            self.problems.append(f"{where}: age '{_short(text)}' is not a number of years")
            return None
        return age

    def _skin_type(self, text: str | None, where: str) -> int | None:
        bare = re.sub(r"^(fitzpatrick|skin|type|\s)+|\.0$", "", (text or "").strip().lower())
        known = {**_SKIN_TYPES, **{str(number): number for number in range(1, 7)}}
        return self._one_of(known, bare, "skin type", where)

    def _one_of(self, known: dict, text: str | None, what: str, where: str):
        text = _stated(text)
        if text is None:
            return None
        value = known.get(text.lower())
        if value is None:
            self.problems.append(f"{where}: {what} '{_short(text)}' is not known")
        return value


def _walk(root: Path) -> Iterator[Path]:
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        # Archives packed on macOS bring shadow files that look like pictures.
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f != "__MACOSX")
        yield from (Path(folder, name) for name in names if not name.startswith("."))


def _stated(text: str | None) -> str | None:
    text = (text or "").strip()
    return None if text.lower() in _UNSTATED else text


def _short(text: str) -> str:
    """Text from a table, fit for one line of a message."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 80 else text[:77] + "..."


def _decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace").replace("\0", "")
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\0", b"")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_table(path: Path, header: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """Rows of a table as dicts with lower-case keys; missing cells are ''.

    UTF-8 (with or without a mark), UTF-16 or Latin-1; comma, semicolon or tab. `header` names
    the columns of a file whose first line is data already. DataError where it is not a table.
    """
    return _parse(path, _decode(path.read_bytes()), header)[1]


def _columns(path: Path) -> set[str]:
    """The column names of a table, of which no more than the beginning is read."""
    with path.open("rb") as file:
        first = _decode(file.read(1 << 16)).partition("\n")[0]
    try:
        return {*_parse(path, first)[0]}
    except DataError:
        return set()


def _parse(
    path: Path, text: str, header: tuple[str, ...] = ()
) -> tuple[list[str], list[dict[str, str]]]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path}: not a readable table ({error})") from error
    if not lines:
        raise DataError(f"{path}: the table is empty")
    if header and _ISIC_ID.match(lines[0][0].strip() if lines[0] else ""):
        names = list(header)
    else:
        names = [name.strip().lower() for name in lines.pop(0)]
    blank = [""] * len(names)
    return names, [
        dict(zip(names, [*(cell.strip() for cell in line), *blank], strict=False))
        for line in lines
        if any(cell.strip() for cell in line)
    ]


def _need(path: Path, rows: list[dict[str, str]], *columns: str) -> None:
    if rows and (missing := [column for column in columns if column not in rows[0]]):
        raise DataError(f"{path}: no column '{missing[0]}'; it has: {_short(', '.join(rows[0]))}")


def _image_id(row: dict[str, str]) -> str:
    for column in ("image", "image_id", "image_name", "isic_id"):
        if column in row:
            return row[column].removesuffix(".jpg")
    return ""


# --- HAM10000 ------------------------------------------------------------------------------


def _ham10000(g: _Gathering) -> None:
    table = g.table(r"ham10000_metadata(\.csv|\.tab|\.txt)?", "HAM10000_metadata.csv")
    rows = read_table(table)
    _need(table, rows, "image_id", "lesion_id", "dx")
    for row in rows:
        name = row["image_id"]
        g.add(
            name,
            g.picture(name, near=table.parent),
            mask=g.picture(f"{name}_segmentation", near=table.parent),
            diagnosis=row["dx"],
            lesion=row["lesion_id"],
            age=row.get("age"),
            sex=row.get("sex"),
            site=row.get("localization"),
        )


# --- ISIC challenges -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """The patterns of one official part: its picture folders, truth tables and metadata tables."""

    official: str
    folder: str
    truth: str = ""
    metadata: str = ""


def _isic(
    g: _Gathering, parts: tuple[_Part, ...], understand: Callable[[dict[str, str]], dict]
) -> None:
    """Read a challenge: what `understand` makes of a picture's truth row, plus its metadata."""
    seen_folder = False
    for part in parts:
        pictures = {
            name: path for name, path in g.pictures(part.folder).items() if _ISIC_ID.match(name)
        }
        seen_folder |= bool(pictures)
        truth = _rows_by_image(g, part.truth)
        metadata = _rows_by_image(g, part.metadata)
        if truth and not pictures:
            g.problems.append(f"{part.official}: {len(truth)} pictures listed, none is here")
            continue
        for name in sorted({*pictures, *truth}):
            row = truth.get(name, {})
            about = {**metadata.get(name, {}), **row}
            g.add(
                name,
                pictures.get(name),
                mask=g.picture(f"{name}_segmentation", near=pictures[name].parent.parent)
                if name in pictures
                else None,
                lesion=about.get("lesion_id"),
                patient=about.get("patient_id"),
                age=about.get("age_approx", about.get("age_approximate")),
                sex=about.get("sex"),
                site=about.get("anatom_site_general") or about.get("anatom_site_general_challenge"),
                official=part.official,
                **understand(row),
            )
    if not seen_folder:
        raise g.unfit("no folder with its pictures")


def _rows_by_image(g: _Gathering, pattern: str) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    for table in g.tables(pattern) if pattern else ():
        for row in read_table(table, header=("image", "class")):
            name = _image_id(row)
            if not name:
                raise DataError(
                    f"{table}: a row without image id; it has: {_short(', '.join(row))}"
                )
            rows[name] = {**rows.get(name, {}), **row}
    return rows


def _no_label(row: dict[str, str]) -> dict:
    return {}


def _one_hot(row: dict[str, str]) -> dict:
    """The column that holds the 1, in ISIC 2018 and 2019."""
    for code in ("MEL", "NV", "BCC", "AKIEC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"):
        if row.get(code.lower(), "") in ("1", "1.0"):
            return {"diagnosis": code, "label": to_class(code)}
    return {}


def _isic2016(g: _Gathering) -> None:
    def understand(row: dict[str, str]) -> dict:
        # "malignant" means melanoma here; "benign" is not all nevi, so it names no class.
        word = {"0.0": "benign", "1.0": "malignant"}.get(row.get("class", ""), row.get("class", ""))
        label = "mel" if word == "malignant" else None
        return {"diagnosis": word, "label": label} if label else {"malignant": word}

    parts = (
        _Part(
            "train",
            r"isbi2016_isic_part(1|2|2b|3|3b)_training_data",
            r"isbi2016_isic_part3b?_training_groundtruth\.csv",
        ),
        _Part(
            "test",
            r"isbi2016_isic_part(1|2|2b|3|3b)_test_data",
            r"isbi2016_isic_part3b?_test_groundtruth\.csv",
        ),
    )
    _isic(g, parts, understand)


def _isic2017(g: _Gathering) -> None:
    def understand(row: dict[str, str]) -> dict:
        if "melanoma" not in row:
            return {}
        if row["melanoma"] in ("1", "1.0"):
            return {"diagnosis": "melanoma"}
        if row.get("seborrheic_keratosis") in ("1", "1.0"):
            return {"diagnosis": "seborrheic keratosis"}
        return {"diagnosis": "nevus"}

    _isic(
        g,
        tuple(
            _Part(
                official,
                rf"isic-2017_{name}_data",
                rf"isic-2017_{name}_part3_groundtruth\.csv",
                rf"isic-2017_{name}_data_metadata\.csv",
            )
            for official, name in (
                ("train", "training"),
                ("val", "validation"),
                ("test", r"test(_v2)?"),
            )
        ),
        understand,
    )


def _isic2018_task1(g: _Gathering) -> None:
    names = (("train", "training"), ("val", "validation"), ("test", "test"))
    parts = tuple(_Part(o, rf"isic2018_task1(-2)?_{name}_input") for o, name in names)
    _isic(g, parts, _no_label)


def _isic2018_task3(g: _Gathering) -> None:
    names = (("train", "training"), ("val", "validation"), ("test", "test"))
    parts = tuple(
        _Part(
            official,
            rf"isic2018_task3_{name}_(input|images)",
            rf"isic2018_task3_{name}_groundtruth\.csv",
            rf"isic2018_task3_{name}_lesiongroupings\.csv",
        )
        for official, name in names
    )
    _isic(g, parts, _one_hot)


def _isic2019(g: _Gathering) -> None:
    parts = tuple(
        _Part(
            official,
            rf"isic_2019_{name}_input",
            rf"isic_2019_{name}_groundtruth\.csv",
            rf"isic_2019_{name}_metadata\.csv",
        )
        for official, name in (("train", "training"), ("test", "test"))
    )
    _isic(g, parts, _one_hot)


def _isic2020(g: _Gathering) -> None:
    def understand(row: dict[str, str]) -> dict:
        return {"diagnosis": row.get("diagnosis"), "malignant": row.get("benign_malignant")}

    # Left: the names of the challenge's own download; right: those on Kaggle.
    parts = (
        _Part(
            "train",
            r"isic_2020_training_(jpeg|input|dicom)|train",
            r"isic_2020_training_groundtruth(_v2)?\.csv|train\.csv",
        ),
        _Part(
            "test",
            r"isic_2020_test_(jpeg|input)|test",
            "",
            r"isic_2020_test_metadata\.csv|test\.csv",
        ),
    )
    _isic(g, parts, understand)
    for table in g.tables(r"isic_2020_training_duplicates\.csv"):
        rows = read_table(table)
        _need(table, rows, "image_name_1", "image_name_2")
        g.same += [(row["image_name_1"], row["image_name_2"]) for row in rows]


def _isic_cli(g: _Gathering) -> None:
    tables = [file for file in g.tables(r".*\.csv") if "isic_id" in _columns(file)]
    if not tables:
        raise g.unfit("no csv with a column isic_id")
    table = tables[0]
    for row in read_table(table):
        words = [row.get(f"diagnosis_{level}", "") for level in (5, 4, 3, 2, 1)]
        words = [word for word in (*words, row.get("diagnosis", "")) if _stated(word)]
        # The finest level may be no class of ours ("Blue") where the one above is ("Nevus").
        classes = [to_class(word) for word in words]
        label = next((name for name in classes if name != "other"), "other" if words else None)
        g.add(
            row["isic_id"],
            g.picture(row["isic_id"], near=table.parent),
            diagnosis=words[0] if words else None,
            label=label,
            malignant=row.get("benign_malignant") or row.get("diagnosis_1"),
            lesion=row.get("lesion_id"),
            patient=row.get("patient_id"),
            age=row.get("age_approx"),
            sex=row.get("sex"),
            site=row.get("anatom_site_special") or row.get("anatom_site_general"),
            skin_type=row.get("fitzpatrick_skin_type"),
            licence=row.get("copyright_license"),
        )


# --- other publishers ----------------------------------------------------------------------


def _ph2(g: _Gathering) -> None:
    table = g.table(r"ph2_dataset\.txt", "PH2_dataset.txt (its .xlsx twin is not read)")
    words = {"0": "common nevus", "1": "atypical nevus", "2": "melanoma"}
    for line in _decode(table.read_bytes()).splitlines():
        cells = [cell.strip() for cell in line.split("||")]
        if len(cells) < 4 or not re.fullmatch(r"IMD\d+", cells[1], re.IGNORECASE):
            continue
        name, code = cells[1].upper(), cells[3]
        if code not in words:
            g.problems.append(f"{name}: clinical diagnosis '{_short(code)}' is not 0, 1 or 2")
        g.add(
            name,
            g.picture(name, near=table.parent),
            mask=g.picture(f"{name}_lesion", near=table.parent),
            diagnosis=words.get(code),
        )


def _pad_ufes_20(g: _Gathering) -> None:
    tables = g.tables(r"metadata\.csv")
    table = next((t for t in tables if {"img_id", "diagnostic"} <= _columns(t)), None)
    if table is None:
        raise g.unfit("no metadata.csv with the columns img_id and diagnostic")
    rows = read_table(table)
    _need(table, rows, "patient_id", "lesion_id")
    for row in rows:
        name = Path(row["img_id"]).stem
        mask = g.picture(f"{name}_mask", near=table.parent)
        # Students drew several masks for most pictures; where they agreed little, none is kept.
        if "iou_best_other" in row and not _at_least(row["iou_best_other"], 0.7):
            mask = None
        g.add(
            name,
            g.picture(name, near=table.parent),
            mask=mask,
            diagnosis=row["diagnostic"],
            # Lesion numbers may repeat from patient to patient.
            lesion=f"{row['patient_id']}/{row['lesion_id']}" if row["lesion_id"] else None,
            patient=row["patient_id"],
            age=row.get("age"),
            sex=row.get("gender"),
            site=row.get("region"),
            skin_type=row.get("fitspatrick") or row.get("fitzpatrick"),
        )


def _at_least(text: str, least: float) -> bool:
    try:
        return float(text) >= least
    except ValueError:
        return False


def _med_node(g: _Gathering) -> None:
    for folder in ("melanoma", "naevus"):
        found = g.pictures(folder)
        if not found:
            raise g.unfit(f"no pictures in a folder '{folder}'")
        for stem in sorted(found):
            g.add(f"{folder}_{stem}", found[stem], diagnosis=folder)


def _derm7pt(g: _Gathering) -> None:
    table = g.table(r"meta\.csv", "meta/meta.csv")
    rows = read_table(table)
    _need(table, rows, "diagnosis", "clinic", "derm")
    official: dict[int, str] = {}
    for part, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        for index in g.tables(rf"{name}_indexes\.csv")[:1]:
            for row in read_table(index):
                number = next(iter(row.values()), "")
                if number.isdecimal() and int(number) < len(rows):
                    official[int(number)] = part
                else:
                    g.problems.append(f"{index.name}: '{_short(number)}' is no row of meta.csv")
    images = next(
        (folder for folder in (table.parent.parent, table.parent) if (folder / "images").is_dir()),
        table.parent,
    )
    for number, row in enumerate(rows):
        case = row.get("case_num") or str(number + 1)
        # The close-up photograph and the dermoscopy picture of one lesion.
        for view in ("derm", "clinic"):
            if not row[view]:
                continue
            where = f"case {case}, {view}"
            image = g.written_path(images / "images", row[view], where)
            if image is None:
                continue
            g.add(
                f"{case}_{view}",
                image,
                where=where,
                diagnosis=row["diagnosis"],
                lesion=case,
                sex=row.get("sex"),
                site=row.get("location"),
                official=official.get(number),
            )


# --- layouts that many share ---------------------------------------------------------------


def _folders(g: _Gathering) -> None:
    pictures = [file for file in g.files if file.suffix.lower() in PICTURES]
    by_folder: dict[Path, set[Path]] = defaultdict(set)
    for file in pictures:
        folder = file.parent
        while folder != g.root:
            by_folder[folder.parent].add(folder)
            folder = folder.parent
    direct = {file.parent for file in pictures}

    def classes(folder: Path, part: str | None) -> Iterator[tuple[Path, str | None]]:
        """Class folders: below any 'train' or 'test', and below folders that merely wrap them."""
        inner = sorted(by_folder[folder])
        parts = {child: _PART_NAMES.get(child.name.lower()) for child in inner}
        wraps = len(inner) == 1 and folder not in direct and inner[0] not in direct
        if inner and (wraps or all(parts.values())):
            for child in inner:
                yield from classes(child, parts[child] or part)
        else:
            yield from ((child, part) for child in inner)

    part_of = dict(classes(g.root, None))
    stems = {(file.parent, file.stem.lower()) for file in pictures}
    for file in pictures:
        folder = next((parent for parent in file.parents if parent in part_of), None)
        if folder is None or _is_mask(file, stems):
            continue
        relative = file.relative_to(g.root)
        name = relative.with_suffix("").as_posix()
        masks = [g.picture(f"{file.stem}{end}", near=file.parent) for end in _MASK_ENDINGS]
        # Dermofit keeps each lesion in a folder of its own, named like its picture.
        lesion = name if file.parent.name == file.stem and file.parent != folder else None
        g.add(
            name if name not in g.records else relative.as_posix(),
            file,
            mask=next((m for m in masks if m and m.parent == file.parent), None),
            diagnosis=folder.name,
            lesion=lesion,
            official=part_of[folder],
        )
    if not g.records:
        raise g.unfit("no folder with pictures")


def _is_mask(file: Path, stems: set[tuple[Path, str]]) -> bool:
    stem = file.stem.lower()
    return any(
        stem.endswith(end) and (file.parent, stem.removesuffix(end)) in stems
        for end in _MASK_ENDINGS
    )


def _csv(g: _Gathering) -> None:
    table = g.table_path
    if table is None:
        found = [t for t in g.tables(r".*\.csv") if "image" in _columns(t)]
        found.sort(key=lambda t: t.name.lower() != "data.csv")
        if not found:
            raise g.unfit("no csv with a column 'image'")
        table = found[0]
    rows = read_table(table)
    _need(table, rows, "image")
    # Drawn pictures stay marked as such even when they are read as a table of one's own.
    g.procedural |= (table.parent / MARKER).is_file()
    for number, row in enumerate(rows, start=2):
        where = f"{table.name} row {number}"
        image = g.written_path(table.parent, row["image"], where)
        if image is None:
            continue
        mask = g.written_path(table.parent, row["mask"], where) if row.get("mask") else None
        part = _PART_NAMES.get(row.get("split", "").lower())
        if part is None and _stated(row.get("split")):
            g.problems.append(f"{where}: split '{_short(row['split'])}' is not train, val or test")
        g.add(
            row.get("id") or Path(row["image"]).with_suffix("").as_posix(),
            image,
            where=where,
            mask=mask,
            diagnosis=row.get("diagnosis"),
            malignant=row.get("malignant"),
            lesion=row.get("lesion_id"),
            patient=row.get("patient_id"),
            age=row.get("age"),
            sex=row.get("sex"),
            site=row.get("site"),
            skin_type=row.get("skin_type"),
            licence=row.get("licence"),
            official=part,
        )


CSV_COLUMNS = (
    "id",
    "image",
    "mask",
    "diagnosis",
    "lesion_id",
    "patient_id",
    "age",
    "sex",
    "site",
    "skin_type",
    "licence",
    "malignant",
    "split",
)
_CSV_LAYOUT = "data.csv with the columns " + ", ".join(CSV_COLUMNS) + " (only image is a must)"

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader(
            "ham10000",
            "HAM10000",
            "CC BY-NC 4.0",
            "HAM10000_metadata.csv beside HAM10000_images_part_1 and HAM10000_images_part_2",
            _ham10000,
        ),
        Reader(
            "isic2016",
            "ISIC 2016",
            "CC0 1.0",
            "ISBI2016_ISIC_Part1_Training_Data, ISBI2016_ISIC_Part1_Training_GroundTruth and "
            "ISBI2016_ISIC_Part3_Training_GroundTruth.csv",
            _isic2016,
        ),
        Reader(
            "isic2017",
            "ISIC 2017",
            "CC0 1.0",
            "ISIC-2017_Training_Data, ISIC-2017_Training_Part1_GroundTruth and "
            "ISIC-2017_Training_Part3_GroundTruth.csv",
            _isic2017,
        ),
        Reader(
            "isic2018_task1",
            "ISIC 2018, task 1 (segmentation)",
            "CC BY-NC 4.0",
            "ISIC2018_Task1-2_Training_Input and ISIC2018_Task1_Training_GroundTruth",
            _isic2018_task1,
        ),
        Reader(
            "isic2018_task3",
            "ISIC 2018, task 3 (classification)",
            "CC BY-NC 4.0",
            "ISIC2018_Task3_Training_Input and ISIC2018_Task3_Training_GroundTruth.csv",
            _isic2018_task3,
        ),
        Reader(
            "isic2019",
            "ISIC 2019",
            "CC BY-NC 4.0",
            "ISIC_2019_Training_Input and ISIC_2019_Training_GroundTruth.csv",
            _isic2019,
        ),
        Reader(
            "isic2020",
            "ISIC 2020",
            "CC BY-NC 4.0",
            "ISIC_2020_Training_JPEG and ISIC_2020_Training_GroundTruth.csv, or train and "
            "train.csv",
            _isic2020,
        ),
        Reader(
            "ph2",
            "PH2",
            "research and education only, by agreement with its publisher",
            "PH2_dataset.txt and IMDxxx/IMDxxx_Dermoscopic_Image/IMDxxx.bmp",
            _ph2,
        ),
        Reader(
            "pad_ufes_20",
            "PAD-UFES-20",
            "CC BY 4.0",
            "metadata.csv (columns img_id, diagnostic) and images/imgs_part_1",
            _pad_ufes_20,
        ),
        Reader(
            "med_node",
            "MED-NODE",
            "none stated; ask its publisher",
            "the folders melanoma and naevus",
            _med_node,
        ),
        Reader(
            "derm7pt",
            "Derm7pt",
            "research only, by agreement with its publisher",
            "meta/meta.csv, meta/train_indexes.csv and images",
            _derm7pt,
        ),
        Reader(
            "folders",
            "one folder per class (Dermnet, SD-198, Dermofit, Kaggle copies)",
            "unknown; ask its publisher",
            "CLASS/picture.jpg, or train/CLASS/picture.jpg and test/CLASS/picture.jpg",
            _folders,
        ),
        Reader("csv", "a table of your own", "not stated", _CSV_LAYOUT, _csv),
        Reader(
            "isic_cli",
            "what `isic image download` of isic-cli writes",
            "as its column copyright_license says",
            "metadata.csv with a column isic_id, and the pictures",
            _isic_cli,
        ),
        Reader(
            "procedural",
            "pictures drawn by dermedge.procedural",
            "procedural, Apache-2.0",
            _CSV_LAYOUT,
            _csv,
            procedural=True,
        ),
    )
}
