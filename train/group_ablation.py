"""What `loss.group` does to the gap between groups, on the frozen features of a bundle.

`python -m train.group_ablation --bundle smartphone --modality clinical --data milk10k=MILK10k
--leave-out ham10000_twins.csv --features features.npz --out FILE.json`

Only the last layer learns, by the loss of the recipes, in five folds of whole lesions: every lesion
is judged by heads that have not seen it, the mean of several seeds. "See a doctor" is where 0.9 of
all malignant lesions are found.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch

from dermedge import UserError, data
from dermedge.cli import call
from dermedge.data.fingerprint import of_bytes
from dermedge.data.groups import SCALES, members
from dermedge.data.records import Record
from dermedge.data.split import group_records
from dermedge.data.tables import read_table
from dermedge.evaluation import metrics
from dermedge.evaluation.provenance import commit
from dermedge.files import check_writable, write_atomic
from dermedge.image.preprocess import Preprocessing
from dermedge.taxonomy import CLASSES, MALIGNANT
from train.ablation import Statistic, add_options, minus, resampled
from train.cropped import Cropper
from train.data import present_labels
from train.groups import GroupWeights, group_row
from train.losses import class_weights, classifier_loss
from train.models import Normalized
from train.origins import origin
from train.prepare import read_prepared
from train.recipe import ClassifierLoss

FOLDS, EPOCHS, BATCH, SENSITIVITY, LEAST = 5, 30, 256, 0.9, 20
WAYS = {
    "without": {},
    "reweighted": {"group_balance": 1.0},
    "group DRO, step 0.01": {"group_dro": 0.01},
    "group DRO, step 0.1": {"group_dro": 0.1},
}


@torch.inference_mode()
def pooled(
    records: Sequence[Record],
    model: Normalized,
    preprocessing: Preprocessing,
    cropper: Cropper | None = None,
) -> np.ndarray:
    """float32 (n, D): what a classifier in evaluation mode pools of each picture.

    `cropper` is for a classifier of crops.
    """

    def read(record: Record) -> np.ndarray:
        if cropper is not None:
            return cropper.read(record, preprocessing)
        return read_prepared(record, preprocessing, False)[0]

    found = []
    for at in range(0, len(records), 16):
        squares = [read(record) for record in records[at : at + 16]]
        found.append(model.explain(torch.from_numpy(np.stack(squares)))["features"].numpy())
    return np.concatenate(found)


def features_of(records: Sequence[Record], bundle: str, cache: Path) -> np.ndarray:
    """float32 (n, D): what the bundle's classifier pools of each picture; kept in `cache`.

    UserError where `cache` holds those of another bundle, or is no such file.
    """
    # By their bytes: other pictures may have the same ids.
    files = of_bytes(records).files
    source = origin(bundle)
    if cache.exists():
        try:
            with np.load(cache) as kept:
                same = str(kept["bundle"]) == source.title
                place = {file: row for row, file in enumerate(kept["files"].tolist())}
                features = kept["features"]
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            same = False
        if not same:
            raise UserError(f"{cache} holds no features of {source.title}: name another file")
        if set(files.tolist()) <= place.keys():
            return np.asarray(features[[place[file] for file in files.tolist()]])
    preprocessing = source.preprocessing("classifier")
    cropper = Cropper(bundle) if preprocessing.crop else None
    features = pooled(records, source.network("classifier")[0], preprocessing, cropper)
    buffer = io.BytesIO()  # to a path, numpy would add .npz
    np.savez(buffer, files=files, features=features, bundle=np.array(source.title))
    write_atomic(cache, buffer.getvalue())
    return features


def judged(
    records: Sequence[Record], features: np.ndarray, loss: ClassifierLoss, seed: int
) -> np.ndarray:
    """float64 (n,): malignancy of each record, by a head that has not seen its lesion."""
    labels = present_labels(records, CLASSES)
    targets = torch.tensor([labels.index(str(record.label)) for record in records])
    folds = np.zeros(len(records), int)
    numbers = {record.id: number for number, record in enumerate(records)}
    groups = group_records(records)
    for place, group in enumerate(np.random.default_rng(seed).permutation(len(groups)).tolist()):
        folds[[numbers[record.id] for record in groups[group]]] = place % FOLDS
    malignant = [label in MALIGNANT for label in labels]
    risk = np.zeros(len(records))
    for fold in range(FOLDS):
        learnt, asked = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        mean, deviation = features[learnt].mean(axis=0), features[learnt].std(axis=0) + 1e-6
        scaled = torch.from_numpy((features - mean) / deviation)
        head = _head(scaled, targets, learnt, [records[i] for i in learnt.tolist()], loss, seed)
        with torch.inference_mode():
            shares = torch.softmax(head(scaled[asked]), dim=1).double().numpy()
        risk[asked] = shares[:, malignant].sum(axis=1)
    return risk


def _head(
    scaled: torch.Tensor,
    targets: torch.Tensor,
    learnt: np.ndarray,
    records: Sequence[Record],
    loss: ClassifierLoss,
    seed: int,
) -> torch.nn.Linear:
    torch.manual_seed(seed)
    classes = int(targets.max()) + 1
    head = torch.nn.Linear(scaled.shape[1], classes)
    torch.nn.init.zeros_(head.weight)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.3)
    inputs, wanted = scaled[learnt], torch.eye(classes)[targets[learnt]]
    weights = class_weights(wanted.sum(dim=0), loss.class_balance)
    groups = GroupWeights(loss, records) if loss.group else None
    rows = torch.from_numpy(np.array([group_row(r, loss.group or "skin_tone") for r in records]))
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(learnt)).split(BATCH):
            by_group = None
            if groups is not None:
                shares = rows[batch]
                by_group = lambda each, shares=shares: groups(each, shares, lambda sums: sums)  # noqa: E731
            value = classifier_loss(
                head(inputs[batch]), wanted[batch], weights, loss, by_group=by_group
            )
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    return head


def _worst(groups: Mapping[str, Statistic]) -> Statistic:
    return lambda weights: float(np.min([group(weights) for group in groups.values()]))


def figures(
    records: Sequence[Record], risks: dict[str, np.ndarray], field: str, resamples: int
) -> dict:
    """Of each way: AUC and sensitivity by group, the gap and the worst; and gaps against without.

    All by bootstrap over lesions and patients, the ways in the same resamples. UserError where
    there are not two groups that can be judged.
    """
    truth = np.array([bool(record.malignant) for record in records])
    own = members(records, SCALES[field])
    enough = [
        name
        for name, places in own.items()
        if name in SCALES[field].groups
        and min(truth[places].sum(), (~truth[places]).sum()) >= LEAST
    ]
    if len(enough) < 2:
        raise UserError(
            f"fewer than two groups of {field} have {LEAST} malignant and {LEAST} benign pictures: "
            "there is no gap to measure"
        )
    figure = resampled(records, resamples)

    def statistic(way: str, measure: str, name: str):
        risk, places = risks[way], np.array(own[name])
        if measure == "auc":
            ranking = metrics.Ranking(risk[places], truth[places])
            return lambda w: ranking.roc_auc(w[places])
        limit = metrics.threshold_at_sensitivity(risk, truth, SENSITIVITY)
        sick = places[truth[places]] if measure == "sensitivity" else places[~truth[places]]
        right = (risk[sick] >= limit) == (measure == "sensitivity")
        return lambda w: float((w[sick] * right).sum() / w[sick].sum()) if w[sick].any() else np.nan

    found: dict = {"judged": enough, "counts": {}, "ways": {}}
    for name, places in own.items():
        found["counts"][name] = [len(places), int(truth[places].sum())]
    first, last = enough[0], enough[-1]
    for way in risks:
        entry: dict = {}
        for measure in ("auc", "sensitivity", "specificity"):
            by_name = {name: statistic(way, measure, name) for name in enough}
            base = {name: statistic("without", measure, name) for name in enough}

            gap = minus(by_name[first], by_name[last])
            entry[measure] = {
                "by group": {name: figure(part) for name, part in by_name.items()},
                "gap": figure(gap),
                "worst": figure(_worst(by_name)),
            }
            if way != "without":
                entry[measure]["gap against without"] = figure(
                    minus(gap, minus(base[first], base[last]))
                )
                entry[measure]["worst against without"] = figure(
                    minus(_worst(by_name), _worst(base))
                )
        whole = metrics.Ranking(risks[way], truth)
        entry["auc of all"] = figure(whole.roc_auc)
        found["ways"][way] = entry
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m train.group_ablation", description=__doc__)
    add_options(parser, "bundle", "data", "modality")
    parser.add_argument(
        "--leave-out", metavar="FILE.csv", help="without the lesions in its column lesion_id"
    )
    parser.add_argument(
        "--group", choices=tuple(SCALES), default="skin_tone", help="(default: skin_tone)"
    )
    parser.add_argument("--features", required=True, metavar="FILE.npz", help="where they are kept")
    add_options(parser, "seeds", "resamples", "out")
    args = parser.parse_args(argv)
    for file in (args.out, args.features):
        check_writable(file)
    gone = set()
    if args.leave_out:
        table = read_table(Path(args.leave_out))
        table.need("lesion_id")
        gone = {row.cells["lesion_id"] for row in table.rows}
    data_set = data.load(*data.parse_source(args.data))
    records = [
        record
        for record in data_set.records
        if record.label in CLASSES
        and record.malignant is not None
        and (args.modality in (None, record.modality))
        and record.lesion_id not in gone
    ]
    features = features_of(records, args.bundle, Path(args.features))
    risks = {}
    for way, options in WAYS.items():
        group = args.group if options else ""
        loss = ClassifierLoss(group=group, **options)
        every = [judged(records, features, loss, seed) for seed in range(args.seeds)]
        risks[way] = np.mean(every, axis=0)
        print(way, file=sys.stderr)
    result = {
        "bundle": origin(args.bundle).title,
        "data_set": data_set.name,
        "modality": args.modality,
        "scale": args.group,
        "pictures": len(records),
        "lesions": len({record.lesion_id or record.id for record in records}),
        "folds": FOLDS,
        "epochs": EPOCHS,
        "seeds": args.seeds,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit("+"),
        **figures(records, risks, args.group, args.resamples),
    }
    write_atomic(args.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(call(main))
