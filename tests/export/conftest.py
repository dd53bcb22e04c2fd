"""Trainings and exports take seconds: each is done once, for all workers of a session."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from filelock import FileLock
from networks import SHORT

from dermedge.data import load, make_split, synthetic
from dermedge.files import write_atomic
from export.graph import onnx_graph
from export.quantization import rounding
from train.loop import train
from train.models import MODELS
from train.recipe import load_recipe

_translated = onnx_graph.translated


@pytest.fixture(scope="session")
def common_folder(tmp_path_factory) -> Path:
    """One for all workers."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


@pytest.fixture(scope="session", autouse=True)
def remembered_graphs(common_folder):
    """A network of equal weights gets the graph that it got before, also from another worker."""
    folder = common_folder / "graphs"
    folder.mkdir(exist_ok=True)

    def remembered(network, size: int) -> onnx.ModelProto:
        digest = hashlib.sha256(repr((size, network.temperature)).encode())
        for name, value in network.state_dict().items():
            digest.update(f"{name} {tuple(value.shape)}".encode() + value.numpy().tobytes())
        path = folder / f"{digest.hexdigest()}.onnx"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                write_atomic(path, _translated(network, size).SerializeToString())
        return onnx.load_model_from_string(path.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "translated", remembered)
        yield


@pytest.fixture(scope="session", autouse=True)
def small_blocks():
    """Rounding takes less time where fewer weights make up for one another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding, "BLOCK", 128)
        yield


@pytest.fixture
def forgotten_graphs(monkeypatch, remembered_graphs):
    """For a test that needs a second export of one network."""
    monkeypatch.setattr(onnx_graph, "translated", _translated)


@pytest.fixture(scope="module", autouse=True)
def _short_networks(short_networks):
    """For all tests of this folder."""


@pytest.fixture(scope="session")
def export_runs(common_folder) -> Iterator[Path]:
    """Runs of each kind, trained for two steps on drawn pictures, and those, in "data".

    To be read: whoever changes a run takes a copy.
    """
    folder = common_folder / "runs"
    with FileLock(f"{folder}.lock"):
        if not (folder / "complete").exists():
            _train(folder)
            (folder / "complete").touch()
    before = _times(folder)
    yield folder
    assert _times(folder) == before, "a test wrote into the runs that all workers read"


def _train(folder: Path) -> None:
    torch.set_num_threads(1)
    synthetic.write_data_set(folder / "data", 60, size=(96, 128))
    data_set = load("procedural", folder / "data")
    split = make_split(data_set, fractions=(0.5, 0.5, 0.0))
    small = ["preprocessing.size=32", "batch_size=4", "max_steps=2", "workers=0", "pretrained=no"]
    short, _ = SHORT
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, *SHORT)
        for name, recipe, special in (
            ("segmenter", "segmenter", ["model=mobilegan-nano"]),
            ("classifier", "classifier", [f"model={short}"]),
            ("multitask", "multitask", ["metadata=age,sex,site"]),
            ("cropped", "classifier", [f"model={short}", "preprocessing.crop=1.5"]),
        ):
            train(load_recipe(recipe, [*small, *special]), data_set, split, folder / name)


def _times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
