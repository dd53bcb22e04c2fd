"""TensorRT engines: built by TensorRT-RTX where it is installed, refused where they are foreign."""

from __future__ import annotations

import _thread
import ast
import ctypes
import enum
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermedge import cli
from dermedge.bundle.bundle import DEFAULT, Bundle, shipped
from dermedge.bundle.manifest import Variant
from dermedge.cli.engine import ENGINE
from dermedge.runtime import SessionError, open_session, tensorrt
from dermedge.runtime import engine_cache as engines
from dermedge.runtime.tensorrt import RTX, Layer, TensorRTSession

GPU = "Orin (compute capability 8.7, 16 multiprocessors)"
HERE = engines.Key("b" * 64, "0" * 64, "tensorrt", "10.3.0", GPU)
HEADER = engines.Header(HERE, "tiny", "segmenter", "int8", 53, 52)


def _has_rtx() -> bool:
    try:
        tensorrt.bindings(RTX)
    except SessionError:
        return False
    return True


needs_rtx = pytest.mark.skipif(not _has_rtx(), reason="TensorRT-RTX is not installed")


def _refusal(call, *args) -> str:
    with pytest.raises(SessionError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _engine(monkeypatch, *args: str) -> int:
    """The exit status of `dermedge engine ARGS`."""
    entry = SimpleNamespace(name="engine", load=lambda: ENGINE)
    monkeypatch.setattr(cli, "entry_points", lambda group: [entry])
    return cli.main(["engine", *args])


# --- the builder


@needs_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n == DEFAULT else pytest.mark.slow) for n in sorted(shipped())],
)
def test_every_network_of_the_shipped_bundles_builds(name, precision, tmp_path):
    bundle = Bundle.open(shipped()[name])
    for part in {
        model.variant("fp32", "tensorrt").part for model in bundle.manifest.models.values()
    }:
        graph = _in_precision(bundle.part(part), precision, tmp_path / "folded.onnx")
        convolutions = [x for x in tensorrt.build(graph, RTX).layers if x.convolution]
        int8 = sum(layer.int8 for layer in convolutions)
        assert len(convolutions) > 50, part
        assert int8 == 0 if precision != "int8" else int8 / len(convolutions) > 0.9, part


def _in_precision(graph: bytes, precision: str, scratch: Path) -> bytes:
    """As the export makes it; of noise, since what the ranges are changes no layer's type."""
    if precision == "fp32":
        return graph
    pytest.importorskip("torch")
    from export.quantization import int8, rounding
    from export.quantization.fp16 import compute_half

    if precision == "fp16":
        return compute_half(graph)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(scratch)  # float weights, as before they were halved
    session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    shapes = {x.name: (x.shape, x.type) for x in session.get_inputs()}
    feeds = [
        {
            name: rng.integers(0, 256, shape).astype(
                np.uint8 if kind == "tensor(uint8)" else np.float32
            )
            for name, (shape, kind) in shapes.items()
        }
        for _ in range(2)
    ]
    # Small blocks take less time; how weights are rounded changes no type, either.
    small = mock.patch.object(rounding, "BLOCK", 64)
    with mock.patch.object(int8, "LEAST_PICTURES", 2), small:
        ranges = int8.observe_ranges(scratch.read_bytes(), feeds, ["minmax"])
        return int8.quantize(ranges, "minmax", int8.SCHEMES["symmetric"])


@needs_rtx
def test_signed_quantization_makes_int8_convolutions(quantized):
    layers = tensorrt.build(quantized(signed=True), RTX).layers
    assert [layer.int8 for layer in layers if layer.convolution] == [True, True]
    assert not all(layer.int8 for layer in layers)


@needs_rtx
def test_half_precision_is_not_int8(convolutions):
    import onnx
    from onnx import helper

    graph = onnx.load_from_string(convolutions)
    for tensor in graph.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
    graph.graph.node[0].attribute[0].i = onnx.TensorProto.FLOAT16
    graph.graph.node[-1].output[0] = "half"
    graph.graph.node.append(helper.make_node("Cast", ["half"], ["mask"], to=1))
    layers = tensorrt.build(graph.SerializeToString(), RTX).layers
    operands = {layer.operands for layer in layers if layer.convolution}
    assert operands == {("Half", "Half")}


@needs_rtx
def test_unsigned_quantization_is_refused_in_one_line(quantized):
    reason = _refusal(tensorrt.build, quantized(signed=False), RTX)
    assert "does not parse the graph" in reason
    assert "UINT8" in reason


@needs_rtx
@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x08"])
def test_what_is_no_graph_is_refused_in_one_line(content):
    assert re.search("does not (parse|build) the graph: ", _refusal(tensorrt.build, content, RTX))


@pytest.fixture
def ctrl_c():
    """A shell that starts the tests in the background has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@needs_rtx
def test_ctrl_c_stops_the_build_and_leaves_no_file(tiny_bundle, tmp_path, monkeypatch, ctrl_c):
    make, sent = tensorrt._monitor, []

    def interrupting(provider):
        monitor = make(provider)

        class Interrupting(type(monitor)):
            def phase_finish(self, phase_name):
                if not sent:  # a second one could come after the build, and end the tests
                    sent.append(phase_name)
                    _thread.interrupt_main()

        return Interrupting()

    monkeypatch.setattr(tensorrt, "_monitor", interrupting)
    args = ("build", "--bundle", str(tiny_bundle), "--provider", RTX, "--out", str(tmp_path))
    assert _engine(monkeypatch, *args) == 130
    assert list(tmp_path.iterdir()) == []


def _files(folder):
    """What changes when a file is written again; reading one may change its access time."""
    stats = {path: path.stat() for path in folder.iterdir()}
    return {path: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


@needs_rtx
def test_command_builds_once_and_lists(tiny_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DERMEDGE_ENGINES", str(tmp_path / "engines"))
    args = ("build", "--bundle", str(tiny_bundle), "--provider", RTX)
    assert _engine(monkeypatch, *args) == 0
    first, second, _ = capsys.readouterr().out.splitlines()
    for line, role in ((first, "segmenter"), (second, "classifier")):
        assert line.startswith(f"{role} fp32: {RTX} {tensorrt.version(RTX)}, ")
        assert re.search(r"built in \d+\.\d s$", line)
    files = _files(tmp_path / "engines")
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}

    assert _engine(monkeypatch, *args) == 0
    assert capsys.readouterr().out.count("up to date") == 2
    assert _files(tmp_path / "engines") == files

    next(iter(files)).write_bytes(b"broken")
    assert _engine(monkeypatch, "list") == 0
    told = capsys.readouterr().out
    assert told.count("cannot be used") == 1
    assert told.count("tiny: ") == 1
    assert "2 engines in" in told
    assert _engine(monkeypatch, *args) == 0
    assert capsys.readouterr().out.count("up to date") == 1


def test_a_folder_of_engines_that_cannot_be_listed_is_an_error(monkeypatch, tmp_path, capsys):
    """Of a mistyped name, or another user's folder, '0 engines' was said."""
    monkeypatch.setenv("DERMEDGE_ENGINES", str(tmp_path / "absent"))
    assert _engine(monkeypatch, "list") == 0
    assert capsys.readouterr().out.startswith("0 engines in")
    (tmp_path / "file").touch()
    for name, reason in (("absent", "No such file"), ("file", "Not a directory")):
        assert _engine(monkeypatch, "list", "--out", str(tmp_path / name)) == 2
        assert reason in capsys.readouterr().err


def test_command_says_what_to_install(tiny_bundle, monkeypatch, capsys):
    monkeypatch.setattr(tensorrt, "_MODULES", {"tensorrt": ("absent_a",), RTX: ("absent_b",)})
    assert _engine(monkeypatch, "build", "--bundle", str(tiny_bundle)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "dermedge[tensorrt]" in told
    assert "dermedge[tensorrt-rtx]" in told


def test_command_names_a_missing_precision(tiny_bundle, monkeypatch, capsys):
    monkeypatch.setattr(tensorrt, "bindings", lambda provider: None)
    args = ("build", "--bundle", str(tiny_bundle), "--precision", "int8")
    assert _engine(monkeypatch, *args) == 2
    assert "has no int8" in capsys.readouterr().err


def test_one_refused_graph_does_not_stop_the_others(tiny_bundle, here, monkeypatch, capsys):
    def build(model, provider):
        if model == Bundle.open(tiny_bundle).model("segmenter"):
            raise SessionError("tensorrt does not parse the graph")
        return tensorrt.Built(b"engine", (), 1.0)

    monkeypatch.setattr(tensorrt, "build", build)
    monkeypatch.setattr(tensorrt, "bindings", lambda provider: None)
    assert _engine(monkeypatch, "build", "--bundle", str(tiny_bundle)) == 1
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == "segmenter fp32: tensorrt does not parse the graph"
    assert second.startswith("classifier fp32: tensorrt 10.3.0")


def test_engines_that_nothing_would_load_are_built_with_a_line(
    tiny_bundle, here, monkeypatch, capsys
):
    monkeypatch.setattr(tensorrt, "build", lambda *_: tensorrt.Built(b"engine", (), 1.0))
    monkeypatch.setattr(tensorrt, "bindings", lambda provider: None)
    args = ("build", "--bundle", str(tiny_bundle), "--out", str(here / "other place"))
    assert _engine(monkeypatch, *args) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"set DERMEDGE_ENGINES='{here / 'other place'}'")
    monkeypatch.setenv("DERMEDGE_ENGINES", str(here / "other place"))
    assert _engine(monkeypatch, *args) == 0
    assert "DERMEDGE_ENGINES" not in capsys.readouterr().out


# --- what TensorRT tells of its layers


def test_layers_of_tensorrt_10_and_11():
    old = {
        "Name": "conv + relu",
        "LayerType": "CaskConvolution",
        "Inputs": [{"Name": "x", "Format/Datatype": "Thirty-two wide vectorized row major Int8"}],
        "Weights": {"Type": "Int8", "Count": 9408},
    }
    new = {
        "Name": "conv_myl0_1",
        "LayerType": "correlation",
        "Inputs": [{"Name": "x", "Datatype": "Int8"}, {"Name": "residual", "Datatype": "Float"}],
        "Constants": [{"Name": "w", "Datatype": "Int8"}, {"Name": "bias", "Datatype": "Float"}],
    }
    for entry in (old, new):
        layer = tensorrt.layer_of_json(entry)
        assert layer.convolution
        assert layer.int8
    assert not tensorrt.layer_of_json({**old, "Weights": {"Type": "Half"}}).int8
    assert not Layer("cast", "kgen", ("UInt8",)).int8
    assert not Layer("signal", "signal", ()).int8


# --- the cache


@pytest.fixture
def here(monkeypatch, tmp_path) -> Path:
    """A machine with HERE's TensorRT and GPU; its cache folder. TensorRT must not be asked."""

    def session(engine, provider):
        raise AssertionError("TensorRT was given an engine")

    monkeypatch.setattr(tensorrt, "version", lambda provider: HERE.version)
    monkeypatch.setattr(tensorrt, "device", lambda provider: HERE.device)
    monkeypatch.setattr(tensorrt, "gpu", lambda provider: None)
    monkeypatch.setattr(tensorrt, "TensorRTSession", session)
    monkeypatch.setenv("DERMEDGE_ENGINES", str(tmp_path))
    return tmp_path


def _stored(folder: Path, **changes) -> Path:
    """The engine of b"graph" in the cache, with `changes` to the key that its header tells."""
    key = engines.Key.here(b"graph", HERE.provider, HERE.bundle)
    path = folder / key.file
    header = replace(HEADER, key=replace(key, **changes))
    path.write_bytes(engines.to_file(header, b"the engine"))
    return path


def test_the_engine_of_this_machine_is_loaded(here, monkeypatch):
    given = []
    monkeypatch.setattr(tensorrt, "TensorRTSession", lambda *args: given.append(args))
    _stored(here)
    open_session(b"graph", provider="tensorrt", bundle_sha256=HERE.bundle)
    assert given == [(b"the engine", "tensorrt")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bundle": "b" * 63 + "c"}, "another bundle"),
        ({"graph": "d" * 64}, "another bundle"),
        ({"version": "10.7.0"}, "built by tensorrt 10.7.0, here is tensorrt 10.3.0"),
        ({"provider": RTX}, "built by tensorrt-rtx"),
        ({"device": GPU.replace("8.7", "8.6")}, "8.6, 16 multiprocessors), here is Orin"),
        ({"device": GPU.replace("16", "8")}, "8 multiprocessors), here is Orin"),  # a Nano's
    ],
)
def test_a_foreign_engine_is_refused(here, changes, reason):
    _stored(here, **changes)
    told = _refusal(engines.load_engine, b"graph", "tensorrt", HERE.bundle)
    assert reason in told
    assert "dermedge engine build --bundle" in told


def test_an_engine_of_another_bundle_or_graph_is_not_found(here):
    _stored(here)
    for graph, bundle in ((b"graph", "c" * 64), (b"another", HERE.bundle)):
        told = _refusal(engines.load_engine, graph, "tensorrt", bundle)
        assert "there is no tensorrt engine of this graph: run `dermedge engine build" in told


def test_every_cut_and_every_flipped_byte_is_refused(here):
    path = _stored(here)
    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1
        for damaged in (content[:position], bytes(changed)):
            path.write_bytes(damaged)
            told = _refusal(engines.load_engine, b"graph", "tensorrt", HERE.bundle)
            assert "is refused" in told
            assert "dermedge engine build --bundle" in told


def test_an_engine_that_does_not_fit_is_built_again(here, tiny_bundle, monkeypatch):
    built = []

    def build(model, provider):
        built.append(model)
        layers = (Layer("a", "correlation", ("Int8", "Int8")), Layer("b", "conv", ("Float",)))
        return tensorrt.Built(b"engine %d" % len(built), layers, 2.0)

    monkeypatch.setattr(tensorrt, "build", build)
    bundle = Bundle.open(tiny_bundle)
    variant = Variant("segmenter.onnx", "fp32", ("tensorrt",))

    def ask(bundle=bundle):
        return engines.build_engine(bundle, variant, ["segmenter"], "tensorrt", here / "new")

    first = ask()
    assert first.seconds == 2.0
    assert (first.header.convolutions, first.header.int8) == (2, 1)
    assert ask() == replace(first, seconds=None)
    assert len(built) == 1

    monkeypatch.setattr(tensorrt, "version", lambda provider: "11.0.0")
    assert "here is tensorrt 11.0.0" in engines.misfit(first.header.key)
    newer = ask()
    assert newer.path == first.path
    assert engines.from_file(newer.path.read_bytes())[1] == b"engine 2"
    assert engines.misfit(newer.header.key) == ""

    newer.path.write_bytes(newer.path.read_bytes()[:-1])
    assert ask().seconds == 2.0
    assert ask(replace(bundle, sha256="c" * 64)).path != first.path
    assert len(built) == 4

    (here / "a file").write_bytes(b"")
    with pytest.raises(OSError, match="a file"):  # before minutes of building
        engines.build_engine(bundle, variant, ["segmenter"], "tensorrt", here / "a file")
    assert len(built) == 4


_words = st.text(max_size=20)
_keys = st.builds(
    engines.Key,
    bundle=_words,
    graph=_words,
    provider=st.sampled_from(["tensorrt", RTX]),
    version=_words,
    device=_words,
)
_headers = st.builds(
    engines.Header,
    key=_keys,
    name=_words,
    roles=_words,
    precision=_words,
    convolutions=st.integers(),
    int8=st.integers(),
)


@given(_headers, st.binary(max_size=100))
def test_a_file_gives_back_what_was_written(header, engine):
    assert engines.from_file(engines.to_file(header, engine)) == (header, engine)


@given(st.binary(max_size=200), st.booleans())
def test_any_other_file_is_refused(content, begun):
    _refusal(engines.from_file, engines._MAGIC * begun + content)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["key", "name", "roles", "convolutions", "extra"]), _json, _json)
def test_a_header_of_any_json_is_read_or_refused(field, value, whole):
    for told in ({**asdict(HEADER), field: value}, whole):
        try:
            _, engine = engines.from_file(_sealed(told))
        except SessionError:
            continue
        assert engine == b"engine"


def _sealed(told) -> bytes:
    """An engine file with this header and the right hash."""
    rest = json.dumps(told).encode() + b"\nengine"
    return engines._MAGIC + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


# --- the session, over a CUDA and a TensorRT that only pretend


class _Error(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2


class _Cuda:
    """Memory, one stream and graphs as CUDA has them; `failing` names a call that fails.

    What is queued on the stream runs when it is waited for, and not earlier.
    """

    cudaError_t = _Error
    cudaMemcpyKind = enum.Enum("Kind", ["cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"])
    cudaStreamCaptureMode = enum.Enum("Mode", ["cudaStreamCaptureModeThreadLocal"])

    def __init__(self, failing: str = ""):
        self.failing = failing
        self.live: dict[int, object] = {}
        self.queue: list = []
        self.capture: list | None = None
        self.launched = 0

    def cudaGetErrorString(self, error):
        return (_Error.cudaSuccess, b"out of memory")

    def cudaGetLastError(self):
        return (_Error.cudaSuccess,)

    def cudaGetDeviceProperties(self, index):
        orin = SimpleNamespace(name=b"Orin\0\0", major=8, minor=7, multiProcessorCount=16)
        return (_Error.cudaSuccess, orin)

    def __getattr__(self, name):
        def call(*args):
            if name == self.failing:
                return (_Error.cudaErrorMemoryAllocation, None)
            return (_Error.cudaSuccess, getattr(self, f"_{name}")(*args))

        return call

    def _take(self, thing) -> int:
        address = ctypes.addressof(thing)
        self.live[address] = thing
        return address

    def _free(self, address):
        del self.live[address]

    def enqueue(self, work):
        (self.queue if self.capture is None else self.capture).append(work)

    _cudaFree = _cudaFreeHost = _cudaStreamDestroy = _free
    _cudaGraphDestroy = _cudaGraphExecDestroy = _free

    def _cudaMalloc(self, size):
        return self._take((ctypes.c_uint8 * size)())

    def _cudaHostAlloc(self, size, flags):
        return self._take((ctypes.c_uint8 * size)())

    def _cudaStreamCreate(self):
        return self._take(ctypes.c_int())

    def _cudaMemcpyAsync(self, goal, source, size, kind, stream):
        self.enqueue(lambda: ctypes.memmove(goal, source, size))

    def _cudaStreamSynchronize(self, stream):
        for work in self.queue:
            work()
        self.queue.clear()

    def _cudaStreamBeginCapture(self, stream, mode):
        self.capture = []

    def _cudaStreamEndCapture(self, stream):
        self.captured, self.capture = self.capture, None
        return self._take(ctypes.c_int())

    def _cudaGraphInstantiate(self, graph, flags):
        return self._take(ctypes.c_int())

    def _cudaGraphLaunch(self, executable, stream):
        self.launched += 1
        self.queue.extend(self.captured)


def _tensorrt(cuda: _Cuda, capturable=None, shape=(1, 2, 2, 3), broken=False):
    """TensorRT with an engine that gives the mean of each channel of "image"."""
    kinds = enum.Enum("DataType", ["UINT8", "FLOAT"])
    modes = enum.Enum("TensorIOMode", ["INPUT", "OUTPUT"])
    described = {
        "image": (shape, kinds.UINT8, modes.INPUT),
        "mean": ((1, 3), kinds.FLOAT, modes.OUTPUT),
    }

    class Context:
        def __init__(self):
            self.addresses = {}
            if capturable is not None:
                self.is_stream_capturable = lambda stream: capturable

        def set_tensor_address(self, name, address):
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream):
            cuda.enqueue(self.compute)
            return True

        def compute(self):
            pixels = (ctypes.c_uint8 * 12).from_address(self.addresses["image"])
            mean = np.array(pixels, np.float32).reshape(4, 3).mean(axis=0)
            ctypes.memmove(self.addresses["mean"], mean.ctypes.data, mean.nbytes)

    class Engine:
        num_io_tensors = 2
        get_tensor_name = staticmethod(list(described).__getitem__)
        get_tensor_shape = staticmethod(lambda name: described[name][0])
        get_tensor_dtype = staticmethod(lambda name: described[name][1])
        get_tensor_mode = staticmethod(lambda name: described[name][2])
        create_execution_context = Context

    severity = enum.Enum("Severity", ["ERROR", "INTERNAL_ERROR", "INFO"])
    logger = type("ILogger", (), {"Severity": severity})

    class Runtime:
        def __init__(self, journal):
            self.journal = journal

        def deserialize_cuda_engine(self, data):
            if broken:
                self.journal.log(severity.ERROR, "the plan is\nof another version")
                return None
            return Engine()

    return SimpleNamespace(
        __version__="10.3.0",
        DataType=kinds,
        TensorIOMode=modes,
        ILogger=logger,
        Runtime=Runtime,
        nptype={kinds.UINT8: np.uint8, kinds.FLOAT: np.float32}.__getitem__,
    )


@pytest.fixture
def pretend(monkeypatch):
    """Makes a session over the pretended libraries; gives it and its CUDA."""

    def make(failing="", **options):
        cuda = _Cuda(failing)
        fake = _tensorrt(cuda, **options)
        monkeypatch.setattr(tensorrt, "bindings", lambda provider: fake)
        monkeypatch.setattr(tensorrt, "_cudart", lambda provider: cuda)
        return cuda, lambda: TensorRTSession(b"engine", "tensorrt")

    return make


PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 1, 2, 2, 3)
MEANS = [[[4.5, 5.5, 6.5]], [[16.5, 17.5, 18.5]]]


@pytest.mark.parametrize(
    ("failing", "capturable", "graph"),
    [
        ("", None, True),
        ("", True, True),
        ("", False, False),
        ("cudaStreamBeginCapture", None, False),
        ("cudaStreamEndCapture", None, False),
        ("cudaGraphInstantiate", None, False),
    ],
)
def test_session_computes_with_and_without_a_graph(pretend, failing, capturable, graph):
    cuda, make = pretend(failing, capturable=capturable)
    session = make()
    assert [(t.name, t.shape, t.dtype) for t in session.inputs] == [("image", (1, 2, 2, 3), "u1")]
    assert [(t.name, t.shape, t.dtype) for t in session.outputs] == [("mean", (1, 3), "f4")]
    assert session.runtime.startswith(f"tensorrt 10.3.0 {GPU}")
    assert session.runtime.endswith("with CUDA graph") == graph
    if failing == "cudaStreamEndCapture":
        cuda.capture = None  # CUDA has left the capture, whatever its result
    found = [session.run({"image": picture}) for picture in PIXELS]
    assert [answer["mean"].tolist() for answer in found] == MEANS
    assert cuda.launched == (2 if graph else 0)
    session.close()
    session.close()
    assert cuda.live == {}
    assert "closed" in _refusal(session.run, {"image": PIXELS[0]})


def test_session_gives_its_memory_back_when_it_is_dropped(pretend):
    cuda, make = pretend()
    session = make()
    assert cuda.live
    del session
    assert cuda.live == {}


def test_closing_waits_for_the_run_of_another_thread(pretend):
    """Freed before, the kernels would write into memory that is no longer theirs."""
    cuda, make = pretend()
    session = make()
    begun, go_on, found = threading.Event(), threading.Event(), []
    wait = cuda._cudaStreamSynchronize

    def slowly(stream):
        begun.set()
        go_on.wait(60)
        wait(stream)

    cuda._cudaStreamSynchronize = slowly
    runner = threading.Thread(target=lambda: found.append(session.run({"image": PIXELS[0]})))
    closer = threading.Thread(target=session.close)
    runner.start()
    assert begun.wait(60)
    closer.start()
    closer.join(0.2)
    memory_held = bool(cuda.live)
    go_on.set()
    runner.join(60)
    closer.join(60)
    assert memory_held
    assert found[0]["mean"].tolist() == MEANS[0]
    assert cuda.live == {}
    assert "closed" in _refusal(session.run, {"image": PIXELS[0]})


@pytest.mark.parametrize(
    "failing",
    ["cudaStreamCreate", "cudaHostAlloc", "cudaMalloc", "cudaMemcpyAsync", "cudaStreamSynchronize"],
)
def test_an_error_of_cuda_is_one_line_and_leaks_nothing(pretend, failing):
    cuda, make = pretend(failing)
    told = _refusal(make)
    assert told == "CUDA: out of memory (cudaErrorMemoryAllocation)"
    assert cuda.live == {}


def test_an_error_while_running_is_one_line(pretend):
    cuda, make = pretend()
    session = make()
    cuda.failing = "cudaStreamSynchronize"
    assert "out of memory" in _refusal(session.run, {"image": PIXELS[0]})


def test_an_engine_that_tensorrt_refuses_is_one_line(pretend):
    cuda, make = pretend(broken=True)
    assert "does not load the engine: the plan is of another version" in _refusal(make)
    assert cuda.live == {}


def test_session_refuses_shapes_that_are_not_fixed(pretend):
    _, make = pretend(shape=(-1, 2, 2, 3))
    assert "fixed shape" in _refusal(make)


@pytest.mark.parametrize("wrong", [PIXELS[0][0], PIXELS[0].astype(np.float32)])
def test_session_refuses_other_arrays(pretend, wrong):
    _, make = pretend()
    assert "image must be uint8 of shape (1, 2, 2, 3)" in _refusal(make().run, {"image": wrong})


@needs_rtx
def test_a_machine_without_a_gpu_is_told_so(tiny_bundle, tmp_path, monkeypatch):
    cuda = _Cuda()
    cuda.cudaGetDeviceProperties = lambda index: (_Error.cudaErrorMemoryAllocation, None)
    monkeypatch.setattr(tensorrt, "_cudart", lambda provider: cuda)
    assert "tensorrt-rtx finds no GPU here" in _refusal(TensorRTSession, b"engine", RTX)


def test_a_gpu_that_is_too_old_for_tensorrt_rtx(monkeypatch):
    cuda = _Cuda()
    turing = SimpleNamespace(name=b"T4", major=7, minor=5, multiProcessorCount=40)
    cuda.cudaGetDeviceProperties = lambda index: (_Error.cudaSuccess, turing)
    monkeypatch.setattr(tensorrt, "_cudart", lambda provider: cuda)
    assert "need compute capability 8.0 and later, this is T4" in _refusal(tensorrt.gpu, RTX)
    assert tensorrt.gpu("tensorrt").name == "T4"


def test_jetsons_that_share_a_name_share_no_engine(monkeypatch):
    """An AGX Orin, an Orin Nano and either in a mode with fewer multiprocessors are all "Orin"."""
    cuda, devices = _Cuda(), set()
    monkeypatch.setattr(tensorrt, "_cudart", lambda provider: cuda)
    for count in (16, 8, 4):
        orin = SimpleNamespace(name=b"Orin", major=8, minor=7, multiProcessorCount=count)
        cuda.cudaGetDeviceProperties = lambda index, orin=orin: (_Error.cudaSuccess, orin)
        devices.add(tensorrt.device("tensorrt"))
    assert len(devices) == 3


# --- the calls of the API


def test_cuda_python_has_every_call():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    names = re.findall(r"\bcuda[A-Z]\w+", Path(tensorrt.__file__).read_text())
    kinds = [runtime, runtime.cudaError_t, runtime.cudaMemcpyKind, runtime.cudaStreamCaptureMode]
    missing = [name for name in names if not any(hasattr(kind, name) for kind in kinds)]
    assert missing == []


@needs_rtx
def test_calls_of_tensorrt_keep_its_types(tmp_path):
    """mypy over the file, with the types that the compiled bindings of TensorRT-RTX tell."""
    pytest.importorskip("mypy")
    _write_types(tmp_path)
    source = Path(tensorrt.__file__).read_text()
    typed = source.replace("trt: Any = bindings(provider)", "import tensorrt as trt")
    assert typed.count("import tensorrt as trt") > 5
    # The types are really looked at.
    wrong = typed.replace(".execute_async_v3(", ".execute_async_v4(")
    assert [line[:8] for line in _type_errors(tmp_path, calls=typed, wrong=wrong)] == ["wrong.py"]


def _write_types(folder: Path) -> None:
    """Stubs of the installed TensorRT-RTX in `folder`, under TensorRT's name."""
    names = ["tensorrt_rtx_bindings", "tensorrt_rtx_bindings.tensorrt_rtx"]
    wanted = [word for name in names for word in ("-m", name)]
    command = [sys.executable, "-c", "from mypy.stubgen import main; main()", "-q"]
    words = [*command, "--inspect-mode", *wanted, "-o", folder]
    subprocess.run(words, check=True, timeout=300)
    stub = folder / "tensorrt_rtx_bindings" / "tensorrt_rtx.pyi"
    lines = stub.read_text().splitlines()
    # A few signatures that the bindings tell are no Python.
    while (line := _syntax_error("\n".join(lines))) is not None:
        lines[line - 1] = ""
    stub.write_text("\n".join(lines))
    (folder / "tensorrt").mkdir()
    text = "from tensorrt_rtx_bindings import *\n__version__: str\n"
    (folder / "tensorrt" / "__init__.pyi").write_text(text)


def _syntax_error(text: str) -> int | None:
    try:
        ast.parse(text)
    except SyntaxError as error:
        return error.lineno
    return None


def _type_errors(folder: Path, **sources: str) -> list[str]:
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    files = [f"{name}.py" for name in sources]
    options = ["--follow-imports=silent", "--ignore-missing-imports", "--check-untyped-defs"]
    path = os.pathsep.join([str(folder), str(Path(tensorrt.__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", folder / "cache", *options, *files],
        cwd=folder,
        env={**os.environ, "MYPYPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode in (0, 1), done.stderr
    return [line for line in done.stdout.splitlines() if re.match(r"\w+\.py:\d+: error", line)]


# --- graphs


@pytest.fixture
def convolutions() -> bytes:
    """uint8 "image" (1, 32, 32, 3) to float32 "mask" (1, 32, 32) by two convolutions."""
    onnx = pytest.importorskip("onnx", reason="needs the extra 'export'")
    from onnx import helper, numpy_helper

    random = np.random.default_rng(0)
    weights = {
        "first": random.normal(size=(16, 3, 3, 3)).astype(np.float32),
        "second": random.normal(size=(1, 16, 3, 3)).astype(np.float32),
        "plane": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "first"], ["hidden"], "one", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Conv", ["active", "second"], ["logits"], "two", pads=[1, 1, 1, 1]),
        helper.make_node("Squeeze", ["logits", "plane"], ["flat"]),
        helper.make_node("Sigmoid", ["flat"], ["mask"]),
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, [1, 32, 32, 3])
    mask = helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, [1, 32, 32])
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "convolutions", [image], [mask], tensors)
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture
def quantized(convolutions, tmp_path):
    """Makes `convolutions` INT8, with signed or unsigned activations."""
    from onnxruntime import quantization

    def make(signed: bool) -> bytes:
        pictures = np.random.default_rng(1).integers(0, 256, (4, 1, 32, 32, 3), np.uint8)
        feeds = iter([{"image": picture} for picture in pictures])
        reader = SimpleNamespace(get_next=lambda: next(feeds, None))
        (tmp_path / "float.onnx").write_bytes(convolutions)
        kinds = quantization.QuantType
        quantization.quantize_static(
            tmp_path / "float.onnx",
            tmp_path / "int8.onnx",
            reader,
            per_channel=True,
            op_types_to_quantize=["Conv"],
            activation_type=kinds.QInt8 if signed else kinds.QUInt8,
            weight_type=kinds.QInt8,
            extra_options={
                "ActivationSymmetric": signed,
                "WeightSymmetric": True,
                "QuantizeBias": False,
            },
        )
        return (tmp_path / "int8.onnx").read_bytes()

    return make
