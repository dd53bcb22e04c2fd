"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

# Tests run side by side; threads that wait for one another's share of small arrays only spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import dermedge  # noqa: F401  # before ONNX Runtime, which some tests import by themselves

settings.register_profile("dermedge", deadline=None)  # speed belongs in benchmarks
settings.load_profile("dermedge")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What the tests import stays: the collector of garbage need not go over it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        gc.enable()


def pytest_collection_modifyitems(config, items):
    """Of workers, each with a file at a time: the largest files first, lest one be left alone."""
    if hasattr(config, "workerinput"):
        sizes = {path: path.stat().st_size for path in {item.path for item in items}}
        items.sort(key=lambda item: -sizes[item.path])


def pytest_unconfigure():
    gc.unfreeze()  # some libraries complain of what is left at the end


# Real skin images lie beside a developer's checkout; they are never part of the project.
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def real_images() -> Path | None:
    """The folder of real data sets, None where it is absent."""
    folder = Path(os.environ.get("DERMEDGE_TEST_DATA", SHARED / "data"))
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def shared_data(real_images) -> Path:
    """The folder of real data sets; tests that need it skip where it is absent."""
    if real_images is None:
        pytest.skip("no real images here; set DERMEDGE_TEST_DATA to a folder of yours")
    return real_images


@pytest.fixture(scope="session")
def onnxruntime_jar() -> str:
    """ONNX Runtime's Java library for desktops; tests that need it skip where it is absent."""
    if find_spec("jnius") is None:
        pytest.skip("pyjnius is not installed: pip install 'dermedge[java]'")
    if not shutil.which("java"):
        pytest.skip("Java is not installed (Debian package default-jdk-headless)")
    fetched = sorted((Path(__file__).parents[1] / "build" / "jar").glob("onnxruntime-*.jar"))
    jar = os.environ.get("DERMEDGE_ONNXRUNTIME_JAR") or (str(fetched[-1]) if fetched else "")
    if not jar:
        pytest.skip("no jar of ONNX Runtime: `make jar`, or set DERMEDGE_ONNXRUNTIME_JAR")
    return os.path.abspath(jar)


@pytest.fixture(scope="session")
def display():
    """A screen of its own, on a number that Xvfb picks."""
    if not shutil.which("Xvfb"):
        pytest.skip("Xvfb is not installed (Debian package xvfb)")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x800x24"]
    server = subprocess.Popen(
        command, pass_fds=[writer], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(writer)
    with os.fdopen(reader) as told:
        number = told.readline().strip()  # written when the server is ready
    yield f":{number}"
    server.terminate()
    server.wait()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory) -> Path:
    """A bundle of two hand-made graphs: dark pixels are lesion, dark pictures are melanoma."""
    from dermedge.bundle.bundle import write_bundle
    from dermedge.bundle.manifest import Manifest, Model, Thresholds
    from dermedge.image.preprocess import Preprocessing

    labels = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    sizes = {"segmenter": 64, "classifier": 32}
    graphs = {"segmenter": _segmenter_graph(64), "classifier": _classifier_graph(32, labels)}
    manifest = Manifest(
        name="tiny",
        created="2026-01-01T00:00:00Z",
        labels=labels,
        models={
            role: Model(
                part=f"{role}.onnx",
                architecture="hand-made",
                preprocessing=Preprocessing(size=size),
                parameters=2,
            )
            for role, size in sizes.items()
        },
        thresholds=Thresholds(mask=0.5, see_doctor=0.4, urgent=0.7),
        licence="Apache-2.0",
        procedural=True,
    )
    path = tmp_path_factory.mktemp("bundle") / "tiny.dermbundle"
    return write_bundle(path, manifest, {f"{role}.onnx": graph for role, graph in graphs.items()})


@pytest.fixture
def both(tiny_bundle, tmp_path):
    """An open bundle whose classifier comes in INT8, too: here simply the same graph."""
    from dataclasses import replace

    from dermedge.bundle.bundle import Bundle, write_bundle
    from dermedge.bundle.manifest import Variant
    from dermedge.runtime import host

    tiny = Bundle.open(tiny_bundle)
    variant = Variant("classifier-int8.onnx", "int8", (host(),))
    model = replace(tiny.manifest.models["classifier"], variants=(variant,))
    parts = {name: tiny.part(name) for name in tiny.manifest.parts}
    parts[variant.part] = parts["classifier.onnx"]
    manifest = replace(tiny.manifest, models={**tiny.manifest.models, "classifier": model})
    return Bundle.open(write_bundle(tmp_path / "both.dermbundle", manifest, parts))


@pytest.fixture
def make_bundle(tiny_bundle, tmp_path):
    """Makes a bundle whose classifier explains itself; see `_explaining_graph` for what it gives.

    `multitask`: that one graph is the segmenter too. `metadata`: fields that it takes. `crop`: of
    the classifier. Other options are thresholds.
    """
    from dataclasses import replace

    from dermedge.bundle.bundle import Bundle, write_bundle
    from dermedge.bundle.manifest import CASES, Model
    from dermedge.image.preprocess import Preprocessing

    def make(multitask=False, metadata=(), crop=0.0, cases=None, **thresholds) -> Path:
        tiny = Bundle.open(tiny_bundle)
        labels, size = tiny.manifest.labels, 64
        graph = _explaining_graph(size, labels, multitask, metadata)
        spec = Preprocessing(size=size, crop=crop)
        model = Model("classifier.onnx", "hand-made", spec, metadata=tuple(metadata))
        models = {**tiny.manifest.models, "classifier": model}
        parts = {"segmenter.onnx": tiny.model("segmenter"), "classifier.onnx": graph}
        if multitask:
            models["segmenter"] = model
            del parts["segmenter.onnx"]
        if cases is not None:
            parts[CASES] = cases
        manifest = replace(
            tiny.manifest,
            models=models,
            thresholds=replace(tiny.manifest.thresholds, **thresholds),
        )
        return write_bundle(tmp_path / "explaining.dermbundle", manifest, parts)

    return make


def _segmenter_graph(size: int) -> bytes:
    """Sigmoid of how much darker than 0.55 of full white a pixel is."""
    from onnx import helper

    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=1),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["planes"], ["gray"], axes=[1], keepdims=0),
        helper.make_node("Sub", ["limit", "gray"], ["darker"]),
        helper.make_node("Mul", ["darker", "gain"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["mask"]),
    ]
    constants = [
        helper.make_tensor("limit", 1, [], [0.55 * 255]),
        helper.make_tensor("gain", 1, [], [0.1]),
    ]
    return _graph(nodes, constants, size, {"mask": [1, size, size]})


def _classifier_graph(size: int, labels: tuple[str, ...]) -> bytes:
    """Softmax over a linear map of the mean colour: melanoma falls with brightness."""
    from onnx import helper

    weights = [[0.0] * len(labels) for _ in range(3)]
    for channel in weights:
        channel[labels.index("mel")] = -0.02
        channel[labels.index("nv")] = 0.02
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=1),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("ReduceMean", ["planes"], ["colour"], axes=[2, 3], keepdims=0),
        helper.make_node("Sub", ["colour", "middle"], ["centred"]),
        helper.make_node("MatMul", ["centred", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = [
        helper.make_tensor("middle", 1, [], [110.0]),
        helper.make_tensor("weights", 1, [3, len(labels)], [v for row in weights for v in row]),
    ]
    return _graph(nodes, constants, size, {"probabilities": [1, len(labels)]})


def _explaining_graph(size: int, labels: tuple[str, ...], mask: bool, fields) -> bytes:
    """All that a classifier's graph may give, from a 4 x 4 grid of mean colours.

    "activation": melanoma falls with brightness. "probabilities": softmax of its mean, plus 3 for
    melanoma where any metadata is told. "embedding": the mean colour. "distance": how far from
    gray 110 it is, over 50. "mask": as `_segmenter_graph`.
    """
    from onnx import helper

    from dermedge.metadata import width

    count, cell = len(labels), size // 4
    rows = [[0.0] * 3 for _ in labels]
    rows[labels.index("mel")], rows[labels.index("nv")] = [-0.02] * 3, [0.02] * 3
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=1),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planes", "middle"], ["centred"]),
        helper.make_node(
            "AveragePool", ["centred"], ["grid"], kernel_shape=[cell, cell], strides=[cell, cell]
        ),
        helper.make_node("Conv", ["grid", "weights"], ["activation"]),
        helper.make_node("ReduceMean", ["activation"], ["seen"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["grid"], ["embedding"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceL2", ["embedding"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["length", "unit"], ["distance"]),
    ]
    constants = [
        helper.make_tensor("middle", 1, [], [110.0]),
        helper.make_tensor("weights", 1, [count, 3, 1, 1], [v for row in rows for v in row]),
        helper.make_tensor("unit", 1, [], [1 / (50 * 3**0.5)]),
    ]
    outputs = {
        "probabilities": [1, count],
        "activation": [1, count, 4, 4],
        "embedding": [1, 3],
        "distance": [1, 1],
    }
    inputs, logits = {}, "seen"
    if fields:
        inputs, logits = {"metadata": [1, width(fields)]}, "logits"
        table = [3.0 * (label == "mel") for _ in range(width(fields)) for label in labels]
        constants.append(helper.make_tensor("late", 1, [width(fields), count], table))
        nodes.append(helper.make_node("MatMul", ["metadata", "late"], ["told"]))
        nodes.append(helper.make_node("Add", ["seen", "told"], ["logits"]))
    nodes.append(helper.make_node("Softmax", [logits], ["probabilities"], axis=1))
    if mask:
        nodes += [
            helper.make_node("ReduceMean", ["planes"], ["gray"], axes=[1], keepdims=0),
            helper.make_node("Sub", ["limit", "gray"], ["darker"]),
            helper.make_node("Mul", ["darker", "gain"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["mask"]),
        ]
        constants.append(helper.make_tensor("limit", 1, [], [0.55 * 255]))
        constants.append(helper.make_tensor("gain", 1, [], [0.1]))
        outputs = {"mask": [1, size, size], **outputs}
    return _graph(nodes, constants, size, outputs, inputs)


def _graph(nodes, constants, size: int, outputs: dict, inputs: dict | None = None) -> bytes:
    import onnx
    from onnx import helper

    def described(shapes: dict):
        return [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        ]

    image = helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [1, size, size, 3])
    graph = helper.make_graph(
        nodes, "tiny", [image, *described(inputs or {})], described(outputs), constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def short_networks():
    """Registers `networks.SHORT` for the tests of a module."""
    from networks import SHORT

    from train.models import MODELS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, *SHORT)
        yield


@pytest.fixture
def few_resamples(monkeypatch):
    """Bootstrap intervals of `benchmarks` from fewer resamples: they are there, but rough."""
    from benchmarks.accuracy import intervals

    monkeypatch.setattr(intervals, "RESAMPLES", 60)


@pytest.fixture(scope="session")
def discs(tmp_path_factory) -> Path:
    """See `evaluations.write_discs`."""
    from evaluations import write_discs

    return write_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="session")
def people(tmp_path_factory) -> Path:
    """See `evaluations.write_people`."""
    from evaluations import write_people

    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="session")
def full_bundle(tiny_bundle, tmp_path_factory):
    """See `evaluations.write_full_bundle`."""
    from evaluations import write_full_bundle

    return write_full_bundle(tiny_bundle, tmp_path_factory.mktemp("full"))
