"""One folder per class, as most copies on Kaggle, Dermnet, SD-198 and Dermofit are laid out."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dermedge.data.readers.gathering import (
    MASK_FOLDER,
    TABLES,
    Gathering,
    Reader,
    folded,
    part_of,
)
from dermedge.data.records import DataError, short
from dermedge.taxonomy import Diagnosis, interpret

_MASK_ENDINGS = (
    *("_segmentation", "_segmentation_mask", "_seg", "_binary_mask", "_mask", "-mask", "mask"),
    *("_groundtruth", "_ground_truth", "_gt", "-gt"),
)
# What the folder beside that of the masks is called. No "photos": beside "images" or "dermoscopy",
# the masks are not theirs.
_PICTURES = frozenset(
    {
        *("images", "image", "imgs", "pictures", "bilder", "imágenes", "imagenes", "imagens"),
        "immagini",
    }
)
# Codes that mean this in Dermofit alone: ML is a mole (melanocytic nevus).
_DERMOFIT = {"ml": "nv", "pyo": "vasc", "iec": "akiec"}


# What the folder of a person is called: "patient_12", "Pat. 3", "Fall 7".
_PERSON = re.compile(
    r"(pt|pat|patient\w*?|pacient\w*?|pazient\w*?|proband\w*?|sub|subj|subject|person|case|caso"
    # In German a case; in English a season: "Fall 2023" counts by its number.
    r"|fall(?![\W_]*(19|20)\d\d$)|hasta|مريض|مريضة|حالة)[\W_]*((id|nr|no|number)[\W_]*)?\d\w*",
    re.IGNORECASE,
)
# Of all pictures: of folders of people or lesions none holds more, as one of a year or batch does.
_MOST_OF_ONE = 0.1

# "melanoma_cancer_dataset" is the name of a collection, not of a class.
_COLLECTION = re.compile(
    r"data ?_?sets?|classif|detect|kaggle|archive|challenge|collection|database|download",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Class:
    """A folder whose pictures are of one diagnosis."""

    folder: Path
    reading: Diagnosis
    part: str | None


class _Tree:
    """The folders below the root that hold pictures."""

    def __init__(self, g: Gathering, pictures: list[Path]):
        self.g = g
        self.inner: dict[Path, set[Path]] = defaultdict(set)
        for file in pictures:
            folder = file.parent
            while folder != g.root:
                self.inner[folder.parent].add(folder)
                folder = folder.parent
        self.direct = {file.parent for file in pictures}
        names = {folder.name.lower() for below in self.inner.values() for folder in below}
        self.dermofit = len(names & _DERMOFIT.keys()) > 1
        # Whether names of classes hold parts, as "train_melanoma" does.
        self.parted = any(
            part and interpret(rest).kind in ("class", "flag")
            for part, rest in map(_part_and_rest, names)
        )
        self.classes: dict[Path, _Class] = {}
        self._descend(g.root, None)

    def reading(self, folder: Path) -> Diagnosis:
        code = _DERMOFIT.get(folder.name.lower())
        if code and self.dermofit:
            return interpret(code)
        return interpret(_part_and_rest(folder.name)[1] if self.parted else folder.name)

    def _descend(self, folder: Path, part: str | None) -> None:
        """Find the class folders: below parts, below folders that merely wrap them, and below
        folders that say nothing where those in them name classes."""
        inner = sorted(self.inner[folder])
        wraps = len(inner) == 1 and folder not in self.direct and inner[0] not in self.direct
        # A part beside others that are none: 'train', 'test' and 'extra'.
        for child in inner:
            named = part_of(child.name)
            if named or (wraps and not self._says(child)) or self._wraps(child):
                self._descend(child, self._one_part(child, part, named))
            else:
                self._class(child, self.reading(child), part)

    def _says(self, folder: Path) -> bool:
        return self.reading(folder).kind in ("class", "flag")

    def _wraps(self, folder: Path) -> bool:
        """Whether a folder without pictures of its own holds class folders, and is none itself."""
        if folder in self.direct:
            return False
        below = self.inner[folder]
        if _COLLECTION.search(folder.name):
            return True
        parts = [child for child in below if part_of(child.name)]
        if self.reading(folder).kind == "class":
            # Classes in it, or parts that hold folders: "melanoma/train/nevus".
            deeper = any(part not in self.direct and self.inner[part] for part in parts)
            return deeper or sum(map(self._says, below)) > 1
        if self._says(folder):
            return False
        return (
            bool(parts)
            or any(map(self._says, below))
            or (len(below) == 1 and any(map(self._wraps, below)))
        )

    def _one_part(self, folder: Path, part: str | None, named: str | None) -> str | None:
        if part and named and part != named:
            raise DataError(
                "{folder}: a folder of the part '{inner}' lies in one of the part '{outer}'",
                code="folders_parts",
                folder=short(str(folder), 300),
                inner=named,
                outer=part,
            )
        return named or part

    def _class(self, folder: Path, reading: Diagnosis, part: str | None) -> None:
        if self.parted:
            part = self._one_part(folder, part, _part_and_rest(folder.name)[0])
        if reading.kind == "number":
            self.g.errors.append(
                f"folder '{short(folder.relative_to(self.g.root).as_posix())}' is a number that "
                "names no class; rename it (melanoma, nevus, ...)"
            )
        self.classes[folder] = _Class(folder, reading, part)
        for child in sorted(self.inner[folder]):
            named = part_of(child.name)
            finer = self.reading(child)
            if named:
                self._class(child, reading, self._one_part(child, part, named))
            elif finer.kind in ("class", "flag"):
                says = {reading.malignant, finer.malignant} - {None}
                both = {reading.label, finer.label} - {None}
                if len(says) > 1 or (reading.kind == finer.kind == "class" and len(both) > 1):
                    self.g.errors.append(
                        f"folder '{short(child.relative_to(self.g.root).as_posix())}' names two "
                        "classes; sort its pictures into one"
                    )
                self._class(child, finer if finer.kind == "class" else reading, part)


def _part_and_rest(name: str) -> tuple[str | None, str]:
    """'train' and 'melanoma' of 'train_melanoma'; no part where it names none, or two."""
    # macOS stores an accent as a character of its own, which would part words.
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", name))
    parts = {part_of(word) for word in words} - {None}
    if len(parts) != 1:
        return None, name
    return parts.pop(), " ".join(word for word in words if not part_of(word))


def _gather(g: Gathering) -> None:
    pictures = [file for file in g.images if file not in g.masks]
    stems = {(file.parent, folded(file.stem)) for file in pictures}
    pictures = [file for file in pictures if not _is_mask(file, stems)]
    tree = _Tree(g, pictures)
    beside = _masks_by_stem(g.masks)
    loose = 0
    ids = Counter(file.relative_to(g.root).with_suffix("").as_posix() for file in pictures)
    lesions = _lesion_folders(tree, pictures)
    people = _people(g, tree, pictures, lesions)
    for file in pictures:
        folder = next((parent for parent in file.parents if parent in tree.classes), None)
        if folder is None:
            loose += 1
            continue
        label = tree.classes[folder]
        if label.reading.kind == "number":
            continue  # an error already
        relative = file.relative_to(g.root)
        name = relative.with_suffix("").as_posix()
        top = folder
        # The name of a part below the class is none of a diagnosis.
        while part_of(top.name) and top.parent in tree.classes:
            top = top.parent
        g.add(
            # Two files of one name differ in their ending.
            name if ids[name] == 1 or name not in g.records else relative.as_posix(),
            file,
            mask=_mask_of(g, file, beside),
            diagnosis=top.name,
            reading=label.reading,
            lesion=name if file.parent in lesions else None,
            patient=people.get(file),
            official=label.part,
        )
    if loose:
        g.notes.append(f"pictures that lie in no class folder, left out: {loose}")
    if not g.records and not g.errors:
        raise g.unfit("no folder with pictures")
    _refuse_names_that_are_none(g)


def _lesion_folders(tree: _Tree, pictures: list[Path]) -> set[Path]:
    """As Dermofit keeps them: each holds one picture, which is called like it."""
    held = defaultdict(set)
    for file in pictures:
        held[file.parent].add(file.stem)
    return {
        folder
        for folder, names in held.items()
        if names == {folder.name} and folder not in tree.classes
    }


def _people(g: Gathering, tree: _Tree, pictures: list[Path], lesions: set[Path]) -> dict[Path, str]:
    """Whose each picture is, where a folder within or around its class says so.

    That is one called "patient 12", or by a number of which there are many. It may be a visit or a
    lesion, and numbers may begin again: pictures that stay together without need do no harm.
    """
    names = {
        file: [
            folder.name
            for folder in reversed(file.relative_to(g.root).parents)
            if folder.name
            and g.root / folder not in tree.classes
            and not part_of(folder.name)
            and (g.root / folder not in lesions or _PERSON.fullmatch(folder.name))
        ]
        for file in pictures
    }
    people: dict[Path, str] = {}
    for level in range(max(map(len, names.values()), default=0)):
        here = {file: own[level] for file, own in names.items() if len(own) > level}
        counts = Counter(name for name in here.values() if _is_number(name))
        many = max(counts.values(), default=0) <= _MOST_OF_ONE * len(pictures)
        for file, name in here.items():
            if _PERSON.fullmatch(name) or (many and name in counts):
                people.setdefault(file, name)
    if people:
        found = dict.fromkeys(map(folded, people.values()))
        g.notes.append(
            f"folders within or around classes, each taken as a patient: {len(found)} (such as "
            f"{short(next(iter(found)))})"
        )
    others = dict.fromkeys(own[0] for file, own in names.items() if own and file not in people)
    if len(others) > 1:
        g.notes.append(
            f"folders within or around classes, not taken as patients: {len(others)} (such as "
            f"{short(next(iter(others)))}); where they are, call them patient_1, patient_2 ..."
        )
    return people


def _is_number(name: str) -> bool:
    """Whether a name is rather a number than a word: "100200", "P-12", "2024-05-17"."""
    return 0 < sum(map(str.isdigit, name)) >= sum(map(str.isalpha, name))


def _refuse_names_that_are_none(g: Gathering) -> None:
    """DataError where no folder names anything: they are lesions or people, not classes; or those
    that a publisher put pictures into of which a table says what they are."""
    names = {record.diagnosis for record in g.records.values()}
    known = {(record.label, record.malignant) for record in g.records.values()}
    tables = [file for file in g.files if file.suffix.lower() in TABLES]
    drawn = any(record.mask for record in g.records.values())  # to learn outlines from
    if ("other", None) in known <= {("other", None), (None, None)} and tables and not drawn:
        raise g.unfit(
            f"its folders name no class (the first is {short(min(filter(None, names)))}), and a "
            f"table lies beside them; read it by the set's own reader, or as "
            f"csv={short(str(tables[0]), 300)}"
        )
    unclear = [name for name in names if name and interpret(name).kind == "unclear"]
    if len(names) > 20 and len(unclear) == len(names):
        raise g.unfit(
            f"its {len(names)} folders name no class (the first is {short(min(unclear))}), they "
            "look like folders of lesions or people"
        )


def _masks_by_stem(files: Iterable[Path]) -> dict[str, list[Path]]:
    masks = defaultdict(list)
    for file in files:
        stem = folded(file.stem)
        for ending in _MASK_ENDINGS:
            stem = stem.removesuffix(ending)
        masks[stem].append(file)
    return masks


def _mask_of(g: Gathering, file: Path, beside: dict[str, list[Path]]) -> Path | None:
    """The mask beside the picture, or in a mask folder that mirrors the picture's."""
    for ending in _MASK_ENDINGS:
        path = g.mask(f"{file.stem}{ending}", near=file.parent)
        if path and path.parent == file.parent:
            return path
    own = _bare(file.relative_to(g.root).parts[:-1])
    fits = [m for m in beside.get(folded(file.stem), []) if _mirrors(g, m, own)]
    if len(fits) > 1:
        g.count("pictures of which several masks are here, none of them used")
    return fits[0] if len(fits) == 1 else None


def _mirrors(g: Gathering, mask: Path, own: list[str]) -> bool:
    parts = mask.relative_to(g.root).parts[:-1]
    return _bare([part for part in parts if not MASK_FOLDER.fullmatch(part)]) == own


def _bare(parts: Iterable[str]) -> list[str]:
    names = map(folded, parts)
    return [name for name in names if name not in _PICTURES]


def _is_mask(file: Path, stems: set[tuple[Path, str]]) -> bool:
    stem = folded(file.stem)
    return any(
        stem.endswith(end) and (file.parent, stem.removesuffix(end)) in stems
        for end in _MASK_ENDINGS
    )


FOLDERS = Reader(
    "folders",
    "one folder per class (Dermnet, SD-198, Dermofit, Kaggle copies)",
    "unknown; ask its publisher",
    "CLASS/picture.jpg, or train/CLASS/picture.jpg and test/CLASS/picture.jpg",
    _gather,
)
