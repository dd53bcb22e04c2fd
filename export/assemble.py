"""From finished runs to the contents of a bundle: calibration, thresholds, graphs, figures."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dermedge import __version__, datasets, metrics, procedural
from dermedge.bundle import ROLES, Manifest, Model, Thresholds
from dermedge.datasets.records import Record
from dermedge.datasets.split import Split
from dermedge.image import ImageError, read_image, read_mask
from dermedge.preprocess import prepare
from dermedge.session import open_session
from dermedge.taxonomy import MALIGNANT
from export.graph import ExportError, Network, compare, to_onnx
from train.loop import Run, load_model, load_run

PART = "val"  # thresholds and calibration are chosen here; the test part stays unseen
SENSITIVITY = 0.95  # at "see a doctor"
SPECIFICITY = 0.95  # at "urgent"
MASK_THRESHOLDS = np.round(np.arange(0.3, 0.71, 0.05), 2)
PARITY_PICTURES = 100
REFERENCE = "reference.npz"
REFERENCE_SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Role:
    """One network, ready for the bundle."""

    run: Run
    graph: bytes
    parity: dict
    measured: dict
    thresholds: dict[str, float]


def assemble(folders: Sequence[str | Path], name: str) -> tuple[Manifest, dict[str, bytes]]:
    """Calibrate, export and measure one segmenter and one classifier.

    Parameters
    ----------
    folders : their run folders, in any order.
    name : what the bundle calls itself.

    Returns
    -------
    The manifest, and the parts for `dermedge.bundle.write_bundle`. Nothing is written.

    Raises
    ------
    UserError
        In one line: not one run of each kind, splits that let one network be tested on what the
        other was trained on, a validation part that thresholds cannot be chosen on, or a graph
        that differs from its network.
    """
    runs = _one_of_each(folders)
    splits = {role: _split(run) for role, run in runs.items()}
    _refuse_leaks(runs, splits)
    finished = {
        role: {"segmenter": _segmenter, "classifier": _classifier}[role](
            run, _validation(run, splits[role])
        )
        for role, run in runs.items()
    }
    parts = {f"{role}.onnx": item.graph for role, item in finished.items()}
    split_parts = _split_parts(splits)
    parts.update({part: split.to_json().encode() for part, split in split_parts.items()})
    parts[REFERENCE] = _reference(finished)
    thresholds = {key: v for item in finished.values() for key, v in item.thresholds.items()}
    manifest = Manifest(
        name=name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        labels=runs["classifier"].labels,
        models={
            role: Model(f"{role}.onnx", run.model, run.preprocessing, "fp32", run.parameters)
            for role, run in runs.items()
        },
        thresholds=Thresholds(**thresholds),
        licence="; ".join(dict.fromkeys(run.licence for run in runs.values())),
        procedural=any(run.procedural for run in runs.values()),
        training_data=tuple(_training_data(role, run) for role, run in runs.items()),
        measured={role: item.measured for role, item in finished.items()},
        parity={role: item.parity for role, item in finished.items()},
        software={
            "dermedge": __version__,
            **{package: version(package) for package in ("torch", "onnx", "onnxruntime")},
        },
    )
    return manifest, parts
