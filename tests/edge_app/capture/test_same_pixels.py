"""Training, export, benchmark and app feed a network the same pixels, bit for bit.

And a saved capture gets from `dermedge analyze` what the app said of it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dermedge import data as datasets
from dermedge import network as network_module
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.bundle.manifest import Manifest, Model
from dermedge.data.split import Split
from dermedge.data.synthetic import write_data_set
from dermedge.image.preprocess import Preprocessing

COUNT = 40


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def data_set(real_images, tmp_path_factory):
    """Real photographs where they are present, else drawn ones."""
    if real_images:
        return datasets.load("pad_ufes_20", real_images / "PAD-UFES-20")
    root = tmp_path_factory.mktemp("drawn")
    write_data_set(root, 40, styles=("dermoscopy", "phone"))
    return datasets.load("procedural", root)


@pytest.fixture
def spec():
    """Everything that the preprocessing can do, switched on."""
    return Preprocessing(size=64, color_constancy=True, hair_removal=True)


@pytest.fixture
def bundle(tiny_bundle, spec, tmp_path):
    """The tiny bundle with this preprocessing before its segmenter."""
    opened = Bundle.open(tiny_bundle)
    old = opened.manifest
    models = dict(old.models)
    models["segmenter"] = Model("segmenter.onnx", "hand-made", spec)
    manifest = Manifest(
        *(old.name, old.created, old.labels, models, old.thresholds, old.licence, old.procedural)
    )
    path = tmp_path / "full.dermbundle"
    write_bundle(path, manifest, {name: opened.part(name) for name in old.parts})
    return Bundle.open(path)


@pytest.fixture
def fed(monkeypatch):
    """Digests of all that a session of 64 px was fed with, in order."""
    seen: list[str] = []
    open_session = network_module.open_session

    def spying(model, *options):
        session = open_session(model, *options)
        run = session.run

        def spy(feeds):
            if feeds["image"].shape[1] == 64:
                seen.append(_digest(feeds["image"]))
            return run(feeds)

        session.run = spy
        return session

    monkeypatch.setattr(network_module, "open_session", spying)
    return seen


def test_every_room_sees_the_same_pixels(data_set, spec, bundle, fed, tmp_path, monkeypatch):
    import torch

    from benchmarks.accuracy import intervals
    from benchmarks.accuracy.evaluate import Options, evaluate
    from benchmarks.accuracy.selection import select
    from edge_app.capture.shots import Shot
    from edge_app.capture.sources import open_source
    from edge_app.capture.worker import Worker
    from export.validation.prepared import FeedSpec, predict
    from train.data import load_pictures
    from train.recipe import load_recipe

    records = [record for record in data_set.records if record.label]
    records = records[:: len(records) // COUNT or 1][:COUNT]

    # Training: what lies in the cache.
    recipe = load_recipe(
        "demo-classifier",
        ["preprocessing.size=64", "preprocessing.color_constancy=true"]
        + ["preprocessing.hair_removal=true"],
    )
    assert recipe.preprocessing == spec
    pictures = load_pictures(records, recipe, tmp_path / "cache")
    trained = {record.id: _digest(pictures.image(i)) for i, record in enumerate(pictures.records)}
    assert len(trained) == len(records)

    # Export: what calibration, thresholds and the parity check are computed on.
    class Network:
        kind = "segmenter"
        metadata = ()

        def __call__(self, images):
            return torch.zeros(len(images), 1, 64, 64)

    seen = predict(
        Network(),
        FeedSpec(spec),
        records,
        lambda seen: (seen.sample.record.id, _digest(seen.sample.square)),
    )
    assert dict(seen) == trained

    monkeypatch.setattr(intervals, "RESAMPLES", 10)
    # Benchmark: accuracy is measured through the analyzer.
    split = Split(data_set.name, 0, {"train": (), "val": tuple(sorted(trained)), "test": ()})
    split.save(tmp_path / "split.json")
    selection = select(data_set, bundle, "val", tmp_path / "split.json", None)
    evaluate(bundle, data_set, selection, Options())
    order = [trained[record.id] for record in selection.records]
    assert fed == order

    # App: a capture, saved as a file and read back.
    by_id = {record.id: record for record in records}
    worker = Worker(lambda: open_source("0"), Analyzer(bundle, threads=1), tmp_path / "captures")
    for name in trained:
        folder = tmp_path / "one" / name
        folder.mkdir(parents=True)
        (folder / by_id[name].image.name).symlink_to(by_id[name].image)
        fed.clear()
        capture = worker.process(Shot(open_source(str(folder)).read()))
        assert not capture.error
        assert fed == [trained[name]]


def test_a_saved_capture_is_analysed_alike(data_set, tiny_bundle, tmp_path):
    from edge_app.capture.shots import Shot
    from edge_app.capture.sources import open_source
    from edge_app.capture.worker import Worker

    worker = Worker(
        lambda: open_source("0"), Analyzer(Bundle.open(tiny_bundle)), tmp_path / "captures"
    )
    shown = {}
    source = open_source(str(Path(data_set.records[0].image).parent))
    for _ in range(5):
        capture = worker.process(Shot(source.read()))
        shown[str(capture.path)] = capture.analysis
    done = subprocess.run(
        [sys.executable, "-m", "dermedge.cli", "analyze", *shown, "--json"]
        + ["--bundle", str(tiny_bundle)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    for line in done.stdout.splitlines():
        found = json.loads(line)
        mine = shown.pop(found["image"])
        for one in (found, mine):
            one.pop("timing_ms")
        assert found == json.loads(json.dumps(mine))
    assert not shown
