"""Gives a finished bundle what tells pictures without a lesion: `outlier.npz`.

It is fitted to good pictures of several data sets: a head that knows one clinic's alone takes those
of others for outliers. Graphs and thresholds of the bundle stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dermedge.bundle.bundle import SUFFIX, Bundle, open_bundle, write_bundle
from dermedge.bundle.manifest import OUTLIERS, ROLES
from dermedge.cli import call
from dermedge.data import DataSet, Record, load_sources
from dermedge.data.fingerprint import of_bytes
from dermedge.data.joint import BETWEEN, join, keyed
from dermedge.data.leak import FILE, LEARNT, TrainingPictures, overlap
from dermedge.data.records import of_modality
from dermedge.data.split import Split
from dermedge.files import check_writable, write_atomic
from dermedge.text import printable
from export import ExportError
from export.bundle.rewrite import check_release, check_rewrite, signing_key
from export.outliers.choose import Chosen, choose, refused_of_each_kind
from export.outliers.look import Looker, cut_from, in_folder, outliers, with_lesion

TRAINING, VALIDATION = 600, 500  # pictures of each source
COPIES = 150  # of them that are looked at once more, as by another photograph
OUTLIERS_OF_A_KIND = 120
FEWEST = 50  # pictures of either part of a source: with fewer nothing is said of it


def joint_split_of(data_sets: Sequence[DataSet], split_file: str | None, cache: Path) -> Split:
    """The joint split of that file, else the one that `train` makes; copies and twins in one part.

    Raises ExportError where the file is of other data sets.
    """
    whole = BETWEEN.join(keyed(data_sets))
    if split_file is None:
        # Torch comes with it, and twins are searched for some minutes.
        from train.data import default_joint_split

        return default_joint_split(data_sets, {}, cache / "split")
    split = Split.load(split_file)
    if split.data_set != whole:
        raise ExportError(
            f"{split_file} is a split of {split.data_set}, the data sets are {whole}: give them in "
            "that order, or leave --split out"
        )
    return split


def parts_of(
    bundle: Bundle, data_sets: Sequence[DataSet], split: Split, modality: str | None
) -> tuple[list[list[Record]], list[list[Record]]]:
    """Records of the training and of the validation part, of each source, chosen by their ids.

    Validation pictures that the classifier learnt from are left out, with a line that says so.
    Raises ExportError where FEWEST of a source are not there.
    """
    records = join(data_sets).records
    found: dict[str, list[list[Record]]] = {"train": [], "val": []}
    for source in keyed(data_sets):
        for part, most in (("train", TRAINING), ("val", VALIDATION)):
            mine = [
                record
                for record in of_modality(split.select(records, part), modality)
                if record.source == source
            ]
            if part == "val":
                mine = _unlearnt(bundle, mine, source)
            if len(mine) < FEWEST:
                raise ExportError(
                    f"{source} has {len(mine)} pictures in the {part} part, {FEWEST} are needed: "
                    "leave the data set out"
                )
            found[part].append(_first(mine, most))
    return found["train"], found["val"]


def _first(records: Iterable[Record], most: int) -> list[Record]:
    """That many, in an order that depends on the ids alone."""
    return sorted(records, key=lambda one: hashlib.sha256(one.id.encode()).digest())[:most]


def _unlearnt(bundle: Bundle, records: list[Record], source: str) -> list[Record]:
    if FILE not in bundle.manifest.parts or not records:
        return records
    known = TrainingPictures.from_bytes(bundle.part(FILE), str(bundle.path))
    learnt = overlap(of_bytes(records), known.of("classifier", LEARNT)) > 0
    if learnt.any():
        print(
            f"{source}: {int(learnt.sum())} of {len(records)} validation pictures are left out: "
            "the classifier learnt from them",
            file=sys.stderr,
        )
    return [record for record, known in zip(records, learnt, strict=True) if not known]


def fit_outliers(
    bundle: Bundle,
    parts: tuple[list[list[Record]], list[list[Record]]],
    cache: Path,
    others: Path | None = None,
    photographs: Path | None = None,
) -> Chosen:
    """The head for a bundle, and its report.

    Both folders hold KIND/PICTURE: `others` to measure with, `photographs` to fit to.
    """
    looker = Looker(bundle, cache)
    training, validation = (
        looker.look(
            [one for records in part for one in with_lesion(records)]
            + [one for records in part for one in with_lesion(records[:COPIES], again=True)],
            note,
        )
        for part, note in zip(parts, ("training parts", "validation parts"), strict=True)
    )
    shown = outliers(parts[0], OUTLIERS_OF_A_KIND)
    if photographs is not None:
        shown += cut_from(photographs, OUTLIERS_OF_A_KIND)
    without = looker.look(shown, "without a lesion")
    chosen = choose(training, validation, without)
    if others is not None:
        seen = looker.look(in_folder(others), "other pictures without a lesion")
        chosen.report["kinds"] = refused_of_each_kind(chosen.head, seen)
    return chosen


def lines_of(report: dict) -> list[str]:
    """The report for people."""
    lines = [f"limit {report['limit']} (by {report['chosen_by']})"]
    for title, part in (("fitted", "lost"), ("left out of fitting", "lost_elsewhere")):
        for source, one in report[part].items():
            more = " ".join(f"{value}" for value in one["more"])
            lines.append(
                f"good pictures of {source}, {title}: {one['pictures']}, no estimate without a "
                f"head {one['without']}, more with it {more}"
            )
    lines += [
        f"no lesion, {kind}, left out of fitting: no estimate with a head {share}"
        for kind, share in report["kinds_left_out"].items()
    ]
    for kind, one in report.get("kinds", {}).items():
        refused = " ".join(f"{value}" for value in one["refused"])
        lines.append(
            f"no lesion, {kind}: {one['pictures']}, no estimate without a head {one['without']}, "
            f"with it {refused}"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Write the bundle that the arguments ask for; UserError where they cannot be followed."""
    parser = argparse.ArgumentParser(prog="python -m export.outliers.add", description=__doc__)
    parser.add_argument("old", metavar="BUNDLE", help="a file, or the name of a shipped one")
    parser.add_argument("new", metavar="NEW.dermbundle", help="the bundle to write")
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="NAME=PATH",
        help="a data set; twice or more",
    )
    parser.add_argument(
        "--split", metavar="FILE", help="the joint one; default: the one that train makes"
    )
    parser.add_argument(
        "--modality", choices=("dermoscopic", "clinical"), help="of the pictures to use; else all"
    )
    parser.add_argument(
        "--photographs",
        metavar="DIR",
        help="photographs without a lesion to fit to, in a folder for each kind, such as people or "
        "rooms: squares are cut from them (default: drawn things alone)",
    )
    parser.add_argument(
        "--ood",
        metavar="DIR",
        help="pictures without a lesion to measure with, in a folder for each kind, such as "
        "benchmarks.corruptions.out_of_distribution writes them",
    )
    parser.add_argument("--report", metavar="FILE", help="where the figures go, as JSON")
    parser.add_argument(
        "--cache",
        default="runs/outliers",
        metavar="DIR",
        help="where is kept what was seen of pictures (default: runs/outliers)",
    )
    parser.add_argument(
        "--release", type=int, metavar="N", help="as of `dermedge export` (default: none)"
    )
    parser.add_argument(
        "--sign", metavar="KEYFILE", help="sign with this Ed25519 private key (PEM, no password)"
    )
    args = parser.parse_args(argv)
    check_release(args.release)
    _check_files(args)
    key = signing_key(args.sign)
    old = open_bundle(args.old)
    check_rewrite(old, key, args.release)
    if set(old.manifest.models) != set(ROLES):
        raise ExportError(f"{old.path} has not both roles: nothing tells a lesion there")
    data_sets = load_sources(args.data)
    if len(data_sets) < 2:
        raise ExportError(
            "what is fitted to one clinic's pictures refuses those of others: give --data twice "
            "or more"
        )
    cache = Path(args.cache)
    split = joint_split_of(data_sets, args.split, cache)
    parts = parts_of(old, data_sets, split, args.modality)
    others, photographs = (Path(one) if one else None for one in (args.ood, args.photographs))
    chosen = fit_outliers(old, parts, cache, others, photographs)
    report = {"bundle": old.sha256, "split": split.sha256, **chosen.report}
    content = {name: old.part(name) for name in old.manifest.parts if name != OUTLIERS}
    content[OUTLIERS] = chosen.head.to_bytes()
    write_bundle(args.new, replace(old.manifest, release=args.release), content, signing_key=key)
    if args.report:
        write_atomic(args.report, json.dumps(report, indent=1) + "\n")
    print("\n".join(lines_of(report)))
    print(f"written: {printable(args.new)}", file=sys.stderr)


def _check_files(args: argparse.Namespace) -> None:
    """Raise ExportError before minutes of work, not after."""
    if not args.new.endswith(SUFFIX):
        raise ExportError(f"a bundle's name ends in {SUFFIX}, got {args.new}")
    for path in map(Path, filter(None, (args.new, args.report))):
        if not path.parent.is_dir():
            raise ExportError(f"there is no folder {path.parent} to write {path.name} to")
        check_writable(path)
    folders = [in_folder(Path(one)) for one in (args.photographs, args.ood) if one]
    known: dict[str, Path] = {}
    for shown in itertools.chain(*folders):
        file = shown.files[0]
        if (same := known.setdefault(shown.key(), file)).parent.parent != file.parent.parent:
            raise ExportError(
                f"{file} is {same}, too: a photograph that the head is fitted to measures nothing"
            )


if __name__ == "__main__":
    sys.exit(call(main))
