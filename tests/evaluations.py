"""Data sets of drawn discs and bundles that the tests of `benchmarks` evaluate."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.accuracy import evaluate
from benchmarks.accuracy.evaluate import Options
from benchmarks.accuracy.selection import select
from benchmarks.latency import cold_start, hardware, timing
from benchmarks.schema import names
from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.data import Split, load
from dermedge.data.synthetic import draw
from dermedge.image.read import Picture

LABELS = ("mel", "nv", "bcc", "bkl")


def blob(dark: int, radius: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """A dark disc on bright skin, and its mask."""
    mask = np.zeros((120, 160), np.uint8)
    cv2.circle(mask, (80, 60), radius, 1, cv2.FILLED)
    image = np.full((120, 160, 3), (225, 180, 160), np.uint8)
    image[mask > 0] = (dark, dark * 2 // 3, dark // 2)
    return image, mask.astype(bool)


def with_split(bundle: Path, split: Split, folder: Path) -> Path:
    split.save(folder / "split.json")
    opened = Bundle.open(bundle)
    parts = {name: opened.part(name) for name in opened.manifest.parts}
    parts["split.json"] = (folder / "split.json").read_bytes()
    return write_bundle(folder / "split.dermbundle", opened.manifest, parts)


def rewritten(bundle: Bundle, folder: Path, name: str, graphs=(), **changes) -> Bundle:
    """The bundle with other values in its manifest, and other graphs."""
    parts = {part: bundle.part(part) for part in bundle.manifest.parts}
    parts |= dict(graphs)
    manifest = replace(bundle.manifest, name=name, **changes)
    used = {model.part for model in manifest.models.values()}
    kept = {part: value for part, value in parts.items() if not part.endswith(".onnx")}
    kept |= {part: parts[part] for part in used}
    return Bundle.open(write_bundle(folder / f"{name}.dermbundle", manifest, kept))


def evaluated(bundle: Bundle, data: Path, **options) -> dict:
    data_set = load("csv", data)
    selection = select(data_set, bundle, "all", baselines=False)
    return evaluate.evaluate(bundle, data_set, selection, Options(threads=2, **options))[0]


def network_metrics(result: dict) -> dict:
    return {
        name: value
        for method in result["methods"]
        if method["name"] == names.NETWORKS
        for name, value in method["metrics"].items()
    }


def write_discs(root: Path) -> Path:
    """Forty pictures of twenty lesions in the generic CSV layout; two of them do not decode."""
    rows = []
    for number in range(40):
        label = LABELS[number // 2 % 4]
        image, mask = blob({"mel": 30, "nv": 110, "bcc": 60, "bkl": 90}[label] + number % 3)
        cv2.imwrite(str(root / f"p{number:02}.png"), image[..., ::-1])
        cv2.imwrite(str(root / f"p{number:02}_mask.png"), mask.astype(np.uint8) * 255)
        rows.append(
            {
                "image": f"p{number:02}.png",
                "mask": f"p{number:02}_mask.png",
                "diagnosis": label,
                "lesion_id": f"l{number // 2}",
                "skin_type": number // 20 * 4 + 1,
            }
        )
    for number in (7, 8):
        (root / f"p{number:02}.png").write_bytes(b"not a picture")
    with open(root / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def write_full_bundle(tiny_bundle: Path, folder: Path) -> Bundle:
    """The tiny bundle with a split, and a classifier that is told age and knows a distance.

    Old age speaks for melanoma. The distance is how far the mean colour is from gray, by 50.
    """
    import onnx
    from onnx import helper

    bundle = Bundle.open(tiny_bundle)
    labels = bundle.manifest.labels
    graph = onnx.load_from_string(bundle.model("classifier"))
    weights = np.zeros((5, len(labels)), np.float32)
    weights[4, labels.index("mel")] = 4
    softmax = next(node for node in graph.graph.node if node.op_type == "Softmax")
    softmax.input[0] = "informed"
    nodes = [
        helper.make_node("MatMul", ["metadata", "of_age"], ["told"]),
        helper.make_node("Add", ["logits", "told"], ["informed"]),
        helper.make_node("Abs", ["centred"], ["away"]),
        helper.make_node("ReduceMean", ["away"], ["mean_away"], axes=[1], keepdims=1),
        helper.make_node("Div", ["mean_away", "fifty"], ["distance"]),
    ]
    rest = [node for node in graph.graph.node if node is not softmax]
    del graph.graph.node[:]
    graph.graph.node.extend([*rest, *nodes, softmax])
    graph.graph.input.append(helper.make_tensor_value_info("metadata", 1, [1, 5]))
    graph.graph.output.append(helper.make_tensor_value_info("distance", 1, [1, 1]))
    graph.graph.initializer.extend(
        [
            helper.make_tensor("of_age", 1, weights.shape, weights.ravel()),
            helper.make_tensor("fifty", 1, [], [50.0]),
        ]
    )
    onnx.checker.check_model(graph)
    models = bundle.manifest.models
    classifier = replace(models["classifier"], metadata=("age",), macs=12_000_000, weights="half")
    training = {
        "data_set": "csv",
        "licence": "CC0 1.0",
        "split_sha256": "ab" * 32,
        "pictures": {"train": 24, "val": 8},
        "seed": 3,
        "steps": 70,
        "imagenet_weights": True,
    }
    return rewritten(
        bundle,
        folder,
        "full",
        {"classifier.onnx": graph.SerializeToString()},
        models={**models, "classifier": classifier},
        thresholds=replace(bundle.manifest.thresholds, unfamiliar=1.0),
        training_data=tuple({"role": role, **training} for role in models),
        licence="CC0 | 1.0",
        procedural=False,
    )


def write_people(root: Path) -> Path:
    """Twenty-four whole pictures with masks; all nevi are of the young, melanoma of the old."""
    lines = ["image,mask,diagnosis,lesion_id,age,skin_type"]
    for number in range(24):
        label = ("mel", "nv", "bcc")[number % 3]
        image, mask = blob({"mel": 60, "nv": 61, "bcc": 62}[label], 24 + number % 5)
        cv2.imwrite(str(root / f"p{number:02}.png"), image[..., ::-1])
        cv2.imwrite(str(root / f"p{number:02}_mask.png"), mask.astype(np.uint8) * 255)
        age = {"mel": 80, "nv": 20, "bcc": 40}[label]
        lines.append(
            f"p{number:02}.png,p{number:02}_mask.png,{label},l{number},{age},{number % 2 * 4 + 1}"
        )
    (root / "data.csv").write_text("\n".join(lines) + "\n")
    return root


def short_bench(patch: pytest.MonkeyPatch) -> None:
    """`dermedge bench` of small pictures, without what starts new processes or waits."""
    start = {"picture": "p", "seconds": [0.5], "peak_bytes": 10_000_000}
    patch.setattr(cold_start, "cold_start", lambda *_: [start])
    patch.setattr(cold_start, "networks_bytes", lambda *_: 1_000_000)
    patch.setattr(hardware, "busy", lambda: 0.0)

    def pictures(images: Sequence[Path]) -> dict[str, bytes | Picture]:
        frame = Picture(draw(3, "phone", size=(72, 128)).image, 72, 128)
        return {timing.FRAME: frame, **{path.name: path.read_bytes() for path in images}}

    patch.setattr(timing, "pictures", pictures)
