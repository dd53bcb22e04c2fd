"""`dermedge data check`: read every picture of a data set, say what is amiss, freeze the split."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dermedge import DISCLAIMER
from dermedge.data import READERS, load, parse_source
from dermedge.data.each import of_each
from dermedge.data.fingerprint import LOOK_BYTES, described, look
from dermedge.data.leak import duplicates, split_apart
from dermedge.data.masks import has_shape, read_lesion_picture
from dermedge.data.readers.gathering import PICTURE_ENDING
from dermedge.data.records import DataError, DataSet, Record, RowErrors, short
from dermedge.data.split import Split, group_records
from dermedge.data.tables import read_table
from dermedge.files import check_folder, check_writable
from dermedge.image.header import ImageError
from dermedge.image.mask_values import looks_inverted
from dermedge.image.read import read_mask
from dermedge.taxonomy import CLASSES
from dermedge.text import printable

# Share of the frame; beyond these a mask is rather a slip than a lesion.
_LARGEST_MASK = 0.98
_SMALLEST_MASK = 0.001
_INVERTED = "mask looks inverted"
_MOST_ROWS = 50  # printed of a table's rows at fault


@dataclass(frozen=True)
class Report:
    """What `check` found; empty lists and dicts of faults are good news.

    `unreadable` and `mask_problems` map an id to what is wrong, in one line. `classes` counts
    labels ('unlabelled' where there is none), `sizes` full picture sizes as 'WIDTHxHEIGHT', the
    commonest first. `notes` count what is not used or not understood. `repeated_lesions` and
    `repeated_patients` map the ids that occur more than once to how often. `near_duplicates` are
    pairs that are one picture by ISIC number, bytes or look (in any of eight views, see
    `dermedge.data.fingerprint`) and that neither lesion nor patient keeps together; the split
    keeps them together all the same.
    """

    data_set: str
    root: str
    licence: str
    procedural: bool
    pictures: int
    masks: int
    groups: int
    classes: dict[str, int]
    official: dict[str, int]
    stated: dict[str, int]
    sizes: dict[str, int]
    modalities: dict[str, int]
    problems: list[str]
    notes: list[str]
    unreadable: dict[str, str]
    mask_problems: dict[str, str]
    repeated_lesions: dict[str, int]
    repeated_patients: dict[str, int]
    identical_files: list[list[str]]
    near_duplicates: list[list[str]]
    # Pictures of one lesion, or copies of one picture, of which the data set says different things.
    contradictions: list[str]


@dataclass(frozen=True)
class _Seen:
    """One picture after reading: error, or size (height, width), SHA-256 and perceptual hash."""

    error: str | None = None
    mask_problem: str | None = None
    size: tuple[int, int] = (0, 0)
    digest: bytes = b""
    look: np.ndarray = field(default_factory=lambda: np.zeros(LOOK_BYTES, np.uint8))


def check(data_set: DataSet, same: Iterable[tuple[str, str]] = (), progress: bool = True) -> Report:
    """Read all pictures and masks of `data_set`; `same` are more pairs of ids of one lesion."""
    records = data_set.records
    seen = list(of_each(_look_at, records, bar=progress))
    pairs = [*data_set.same, *same]
    groups = group_records(records, pairs)
    readable = [index for index, one in enumerate(seen) if one.error is None]
    labels = Counter(record.label or "unlabelled" for record in records)
    sizes = Counter(f"{seen[i].size[1]}x{seen[i].size[0]}" for i in readable)
    by_digest = defaultdict(list)
    for index in readable:
        by_digest[seen[index].digest].append(records[index].id)
    facts = (
        *("age", "sex", "site", "skin_type", "skin_tone", "modality", "lesion_id", "patient_id"),
        "malignant",
    )
    identical = [sorted(ids) for ids in by_digest.values() if len(ids) > 1]
    near = _near_duplicates(records, seen, groups)
    return Report(
        data_set=data_set.name,
        root=str(data_set.root),
        licence=data_set.licence,
        procedural=data_set.procedural,
        pictures=len(records),
        masks=sum(record.mask is not None for record in records),
        groups=len(groups),
        classes={name: labels[name] for name in (*CLASSES, "unlabelled") if labels[name]},
        official=dict(Counter(r.official for r in records if r.official)),
        stated={fact: sum(getattr(r, fact) is not None for r in records) for fact in facts},
        sizes=dict(sizes.most_common()),
        modalities=dict(Counter(r.modality for r in records if r.modality)),
        problems=list(data_set.problems),
        notes=[*data_set.notes, *([data_set.ungrouped] if data_set.ungrouped else [])],
        unreadable={r.id: one.error for r, one in zip(records, seen, strict=True) if one.error},
        mask_problems={
            r.id: one.mask_problem for r, one in zip(records, seen, strict=True) if one.mask_problem
        },
        repeated_lesions=_repeated(record.lesion_id for record in records),
        repeated_patients=_repeated(record.patient_id for record in records),
        identical_files=identical,
        near_duplicates=near,
        contradictions=_contradictions(records, [*identical, *near, *pairs]),
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `dermedge data`."""
    parser.add_argument("action", choices=["check"], help="check: read all pictures and report")
    parser.add_argument(
        "source", metavar="NAME=PATH", help=f"data set and folder; NAME is {', '.join(READERS)}"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    parser.add_argument(
        "--split", metavar="FILE", help="where the split is stored (default: ./NAME.split.json)"
    )
    parser.add_argument(
        "--same",
        metavar="CSV",
        help="more pictures that show one lesion: a table with the columns id_a and id_b, ids or "
        "file names",
    )
    parser.add_argument(
        "--test-on",
        choices=("test", "val"),
        default="test",
        help="val: where the publisher made a validation part and no test part, test on it and "
        "take a new validation part out of training",
    )
    parser.add_argument(
        "--split-by-picture",
        action="store_true",
        help="split although the publisher's table of lesions is missing: pictures of one lesion "
        "may then be in two parts",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace a stored split that differs from the new one"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")


def run(args: argparse.Namespace) -> int:
    """Check, report, store the split. Returns 1 where a stored split was kept against this one."""
    name, path = parse_source(args.source)
    same = _read_pairs(Path(args.same)) if args.same else []
    data_set = _load(name, path)
    same = _with_ids(same, data_set, args.same)
    file = Path(args.split or f"{name}.split.json")
    _check_place(file, args.force)
    report = check(data_set, same)
    # A stored split never names a picture that training would stumble over.
    if len(report.unreadable) == report.pictures:
        raise DataError(f"{path}: no picture can be read; {next(iter(report.unreadable.values()))}")
    # What is one picture stays in one part, whatever the tables say.
    pairs = [(one, other) for one, other in report.near_duplicates]
    split = split_apart(
        data_set,
        pairs,
        report.unreadable,
        same,
        args.seed,
        args.test_on,
        args.split_by_picture,
    )
    refusal = _store(split, file, args.force)

    stored = {
        "file": str(file),
        "sha256": split.sha256,
        "seed": split.seed,
        "written": refusal is None,
        "parts": {part: len(ids) for part, ids in split.parts.items()},
        "notes": list(split.notes),
    }
    if args.json:
        print(json.dumps({**asdict(report), "split": stored, "disclaimer": DISCLAIMER}))
    else:
        print("\n".join(map(printable, _lines(report, stored))))
        print(DISCLAIMER)
    if refusal:
        print(f"dermedge: {printable(refusal)}", file=sys.stderr)
    return 1 if refusal else 0


def _load(name: str, path: Path) -> DataSet:
    """`load`, which first prints all rows at fault where there are more than its error names."""
    try:
        return load(name, path)
    except RowErrors as error:
        for line in error.lines[:_MOST_ROWS]:
            print(line, file=sys.stderr)
        if len(error.lines) > _MOST_ROWS:
            print(f"... and {len(error.lines) - _MOST_ROWS} more", file=sys.stderr)
        raise


def _look_at(record: Record) -> _Seen:
    try:
        picture = read_lesion_picture(record.image)
        digest = hashlib.sha256(record.image.read_bytes()).digest()
    except (ImageError, OSError) as error:
        return _Seen(error=" ".join(str(error).split()))
    return _Seen(
        mask_problem=_judge_masks(record, picture.height, picture.width),
        size=(picture.height, picture.width),
        digest=digest,
        look=look(picture.pixels),
    )


def _judge_masks(record: Record, height: int, width: int) -> str | None:
    if record.mask and (problem := _judge_mask(record.mask, height, width)):
        return problem
    if record.second_mask and (problem := _judge_mask(record.second_mask, height, width)):
        return f"drawn by the second person: {problem}"
    for path in record.outlines:
        if path in (record.mask, record.second_mask):
            continue
        if problem := _judge_mask(path, height, width):
            return f"{path.parent.name}/{path.name}: {problem}"
    return None


def _judge_mask(path: Path, height: int, width: int) -> str | None:
    try:
        mask = read_mask(path)
    except (ImageError, OSError) as error:
        return " ".join(str(error).split())
    sizes = f"mask is {mask.shape[1]}x{mask.shape[0]}, picture {width}x{height}"
    if not has_shape(mask, height, width):
        return sizes
    share = float(mask.mean())
    if not share:
        return "mask is empty: it covers 0.00% of the frame"
    if looks_inverted(mask):
        return f"{_INVERTED}: it covers more of the frame's border than of the frame ({share:.2%})"
    if not _SMALLEST_MASK <= share <= _LARGEST_MASK:
        return f"mask covers {share:.2%} of the frame"
    return f"{sizes}; it is scaled" if mask.shape != (height, width) else None


def _repeated(names: Iterable[str | None]) -> dict[str, int]:
    counts = Counter(name for name in names if name is not None)
    return {name: count for name, count in counts.most_common() if count > 1}


def _contradictions(records: Sequence[Record], alike: Iterable[Sequence[str]]) -> list[str]:
    """Lines such as "a = b: nv, mel"; of lesions by their name. `alike`: ids of copies, or of one
    lesion."""
    by_id = {record.id: record for record in records}
    known = (ids for ids in alike if by_id.keys() >= set(ids))
    same = {" = ".join(ids): [by_id[name] for name in ids] for ids in known}
    for record in records:
        if record.lesion_id:
            same.setdefault(f"lesion {record.lesion_id}", []).append(record)
    words = {True: "malignant", False: "benign", None: None}
    lines = []
    for name, group in same.items():
        labels, flags = {r.label for r in group}, {r.malignant for r in group}
        # "benign" beside "nv" says less, and nothing else.
        if max(len(labels - {None}), len(flags - {None})) > 1:
            stated = dict.fromkeys(record.label or words[record.malignant] for record in group)
            lines.append(f"{name}: {', '.join(filter(None, stated))}")
    return lines


def _near_duplicates(
    records: tuple[Record, ...], seen: list[_Seen], groups: list[list[Record]]
) -> list[list[str]]:
    number_of = {record.id: number for number, group in enumerate(groups) for record in group}
    prints = described(records, [one.digest for one in seen], [one.look for one in seen])
    pairs = duplicates(records, prints)
    return [list(pair) for pair in pairs if number_of[pair[0]] != number_of[pair[1]]]


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    table = read_table(path)
    table.need("id_a", "id_b")
    return [(row.cells["id_a"], row.cells["id_b"]) for row in table.rows]


def _with_ids(names: list[tuple[str, str]], data_set: DataSet, path: str) -> list[tuple[str, str]]:
    """The pairs with ids in place of names of files. DataError where they are of another set."""
    ids = {record.id for record in data_set.records}

    def known(name: str) -> str:
        return name if name in ids else PICTURE_ENDING.sub("", name.replace("\\", "/"))

    pairs = [(known(one), known(other)) for one, other in names]
    if names and not any(ids.issuperset(pair) for pair in pairs):
        raise DataError(
            "{path}: no line of it names two pictures of the data set; the first has {pair}, an id "
            "here is {known}",
            code="same_unknown",
            path=path,
            pair=short(", ".join(names[0])),
            known=short(min(ids)),
        )
    return pairs


def _check_place(file: Path, force: bool) -> None:
    """Raise, before every picture is read, where the split could not be stored."""
    if file.is_dir() or force or not file.exists():
        here = next(folder for folder in file.absolute().parents if folder.exists())
        if here == file.absolute().parent:
            check_writable(file)
        else:
            check_folder(here)


def _store(split: Split, file: Path, force: bool) -> str | None:
    """Write the split unless another one is stored there; then the line that says so."""
    if file.exists() and not force:
        advice = "kept; --force replaces it, --split FILE stores the new one elsewhere"
        try:
            stored = Split.load(file)
        except DataError as error:
            return f"{error}; {advice}"
        if stored.sha256 != split.sha256:
            return f"{file}: a different split is frozen there ({stored.sha256[:12]}), {advice}"
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    split.save(file)
    return None


def _lines(report: Report, stored: dict[str, Any]) -> list[str]:
    lines = [
        f"{READERS[report.data_set].title} in {report.root}",
        f"licence: {report.licence}",
        *(["GENERATED PICTURES: not for real skin"] if report.procedural else []),
        f"pictures: {report.pictures}, with mask: {report.masks}, groups: {report.groups}",
        f"classes: {_counts(report.classes)}",
        *([f"official parts: {_counts(report.official)}"] if report.official else []),
        f"stated: {_counts(report.stated)}",
        f"sizes: {_counts(dict(list(report.sizes.items())[:5]))} ({len(report.sizes)} different)",
        *_repeats("lesions", report.repeated_lesions),
        *_repeats("patients", report.repeated_patients),
        *([f"kinds of picture: {_counts(report.modalities)}"] if report.modalities else []),
        *_some("missing or malformed", report.problems),
        *_some("not used, or not understood", report.notes, most=20),
        *_some("unreadable", [f"{name}: {why}" for name, why in report.unreadable.items()]),
        *_some("masks", [f"{name}: {why}" for name, why in report.mask_problems.items()]),
        *_mask_kinds(report),
        *_some("byte-identical files", [" = ".join(ids) for ids in report.identical_files]),
        *_some(
            "near-duplicates (copied, flipped, turned, resized or recoloured), kept in one part",
            [" ~ ".join(pair) for pair in report.near_duplicates],
        ),
        *_some("one lesion or one picture with several diagnoses", report.contradictions),
        f"split: {_counts(stored['parts'])}, seed {stored['seed']}, sha256 {stored['sha256'][:12]}",
        *_some("notes on the split", stored["notes"]),
    ]
    if stored["written"]:
        lines.append(f"stored in {stored['file']}")
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _repeats(what: str, repeated: dict[str, int]) -> list[str]:
    if not repeated:
        return []
    examples = _counts(dict(list(repeated.items())[:3]))
    return [f"{what} that occur more than once: {len(repeated)} (for example {examples})"]


def _mask_kinds(report: Report) -> list[str]:
    inverted = sum(why.startswith(_INVERTED) for why in report.mask_problems.values())
    empty = sum(why.startswith("mask is empty") for why in report.mask_problems.values())
    return [
        *([f"masks that look inverted (lesion and skin swapped): {inverted}"] if inverted else []),
        *([f"empty masks: {empty}"] if empty else []),
    ]


def _some(title: str, lines: list[str], most: int = 10) -> list[str]:
    """A heading with the count and the first lines; --json has them all."""
    more = [f"  ... and {len(lines) - most} more (--json lists all)"] if len(lines) > most else []
    return [f"{title}: {len(lines)}", *(f"  {line}" for line in lines[:most]), *more]
