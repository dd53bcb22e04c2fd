"""Take the ids of training pictures out of a bundle of version 0.1.0; nothing else changes.

`python -m export.repack OLD.dermbundle NEW.dermbundle --data NAME=PATH --earlier OTHER.dermbundle`

Splits and the ids of labelled cases leave, `training.npz` (see `dermedge.data.leak`) comes.
Pictures that have no ISIC number are looked at in `--data`. `--earlier` names a bundle of the
networks that this one's started from. What was measured with OLD holds for NEW, whose graphs and
thresholds are the same to the last bit: a line for `benchmarks/results/repacked.json` that says so
is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dermedge import UserError
from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.bundle.manifest import CASES, Manifest
from dermedge.bundle.similar import SimilarCases
from dermedge.cli import call
from dermedge.data import DataSet, Split, load_sources
from dermedge.data.fingerprint import of_names, of_pictures
from dermedge.data.leak import FILE, TrainingPictures, published
from train.run import of_split

_SPLITS = ("split.json", "split-segmenter.json")


def repack(
    bundle: Bundle, data_sets: dict[str, DataSet], earlier: Sequence[TrainingPictures] = ()
) -> tuple[Manifest, dict[str, bytes]]:
    """Manifest and parts without ids, for `write_bundle`; `data_sets` are by name.

    UserError where the bundle carries no split, or is signed: a signature would be lost.
    """
    manifest = bundle.manifest
    parts = {name: bundle.part(name) for name in manifest.parts}
    if bundle.signed:
        raise UserError(f"{bundle.path} is signed: export it again, and sign that")
    splits = [Split.from_json(parts.pop(name), name) for name in _SPLITS if name in parts]
    if not splits:
        raise UserError(f"{bundle.path} carries no split")
    lists, training = [], []
    for entry in manifest.training_data:
        split = next(one for one in splits if one.sha256 == entry["split_sha256"])
        prints = {part: of_names(ids) for part, ids in split.parts.items()}
        if data_set := data_sets.get(split.data_set):
            prints = {
                part: of_pictures(split.select(data_set.records, part))[0] for part in split.parts
            }
        lists.append(of_split(entry["role"], split, prints, earlier))
        counts = {part: len(ids) for part, ids in split.parts.items()}
        training.append({**entry, "split_parts": counts})
    parts[FILE] = published(lists)
    if CASES in parts:
        cases = SimilarCases.from_bytes(parts[CASES], len(manifest.labels))
        ids = tuple(f"case-{number}" for number in range(1, 1 + len(cases.ids)))
        parts[CASES] = replace(cases, ids=ids).to_bytes()
    return replace(manifest, training_data=tuple(training)), parts


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m export.repack", description=__doc__)
    parser.add_argument("old", metavar="OLD", help="the bundle of version 0.1.0")
    parser.add_argument("new", metavar="NEW", help="the bundle to write")
    parser.add_argument(
        "--data", action="append", default=[], metavar="NAME=PATH", help="may be repeated"
    )
    parser.add_argument(
        "--earlier", action="append", default=[], metavar="BUNDLE", help="may be repeated"
    )
    args = parser.parse_args(argv)
    old = Bundle.open(args.old)
    sets = load_sources(args.data)
    earlier = [TrainingPictures.from_bytes(Bundle.open(b).part(FILE), b) for b in args.earlier]
    manifest, parts = repack(old, {one.name: one for one in sets}, earlier)
    new = Bundle.open(write_bundle(args.new, manifest, parts))
    line = {
        "bundle": Path(args.new).name,
        "sha256": new.sha256,
        "was": old.sha256,
        "graphs": {name: new.manifest.parts[name]["sha256"] for name in sorted(new.graphs())},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    sys.exit(call(main))
