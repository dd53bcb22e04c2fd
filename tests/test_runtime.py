"""ONNX Runtime's providers: FP32 is FP32 on each, and nothing that reports is ever run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import PRECISIONS
from dermedge.runtime import (
    ENGINES,
    JAVA,
    PROVIDERS,
    RUNTIMES,
    SessionError,
    host,
    installed,
    open_session,
)
from dermedge.runtime.onnx import FP32_OPTIONS, HALF_ONLY, provider_options


def test_every_provider_says_how_it_is_held_to_a_precision():
    assert set(FP32_OPTIONS) | set(HALF_ONLY) == set(PROVIDERS)
    assert not set(FP32_OPTIONS) & set(HALF_ONLY)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("provider", "option", "value"),
    [
        ("cuda", "use_tf32", "0"),
        ("ort-openvino", "precision", "FP32"),
        ("ort-openvino", "device_type", "CPU"),
        ("coreml", "ModelFormat", "MLProgram"),
        ("coreml", "AllowLowPrecisionAccumulationOnGPU", "0"),
        ("qnn", "enable_htp_fp16_precision", "0"),
    ],
)
def test_floats_are_never_computed_in_less(provider, option, value, precision):
    """Of an FP16 and an INT8 graph, too: what they keep in float is meant to be float."""
    assert provider_options(provider, precision)[option] == value


@pytest.mark.parametrize("provider", sorted(FP32_OPTIONS))
def test_no_option_turns_half_precision_on(provider):
    options = provider_options(provider, "fp32", 2)
    on = [key for key, value in options.items() if value in ("1", "True", "FP16", "ACCURACY")]
    assert not [key for key in on if any(word in key.lower() for word in ("16", "tf32", "low"))]
    assert "FP16" not in options.values()


def test_tensorrt_behind_onnx_runtime_runs_what_was_accepted_as_half():
    assert provider_options("ort-tensorrt", "fp16") == {"trt_fp16_enable": "True"}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_tensorrt_behind_onnx_runtime_is_refused_for_the_rest(precision):
    with pytest.raises(SessionError, match=f"half precision, which is not {precision}") as caught:
        open_session(b"", provider="ort-tensorrt", precision=precision)
    assert caught.value.code == "provider-precision"
    assert "\n" not in str(caught.value)


def test_tune_names_why_a_provider_that_rounds_is_left_out(tiny_bundle, monkeypatch):
    from dermedge import tune

    monkeypatch.setattr(tune, "providers", lambda: ["cpu", "ort-tensorrt"])
    monkeypatch.setattr(tune, "ROUNDS", (2, 2))
    results = tune.tune(Bundle.open(tiny_bundle), 0.01)
    left_out = [r for r in results if r.execution.provider == "ort-tensorrt"]
    assert left_out
    assert all("rounds floats to half precision" in r.reason for r in left_out)


def test_the_options_reach_onnx_runtime(tiny_bundle, monkeypatch):
    import onnxruntime

    seen = []

    class Session:
        def __init__(self, model, options, providers, enable_fallback):
            assert not enable_fallback
            seen.append((providers, options))
            raise RuntimeError("no GPU\nhere")

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    with pytest.raises(SessionError, match="no GPU here"):
        open_session(b"graph", provider="cuda")
    ((first, rest), options) = seen[0]
    assert first == ("CUDAExecutionProvider", {"use_tf32": "0"})
    assert rest == "CPUExecutionProvider"
    entry = options.get_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16")
    assert entry == "0"


class Building:
    """ONNX Runtime with TensorRT: keeps what it builds, named as it does after the structure."""

    built = 0

    def __init__(self, model, options, providers, enable_fallback):
        (self.full, settings), _ = providers
        path = settings.get("trt_engine_cache_path")
        assert settings.get("trt_engine_cache_enable") == ("True" if path else None)
        engine = Path(path or os.devnull) / "kernel_graph_fp16_sm87.engine"
        if path is None or not engine.exists():
            type(self).built += 1
            if path is not None:
                engine.write_bytes(model)
            if model == b"refused":
                raise RuntimeError("the graph is refused")
        elif engine.read_bytes() != model:
            raise RuntimeError("could not deserialize engine")

    def disable_fallback(self):
        pass

    def get_providers(self):
        return [self.full]

    def get_inputs(self):
        return []

    get_outputs = get_inputs


@pytest.fixture
def building(monkeypatch, tmp_path):
    """Opens a graph by such an ONNX Runtime, and gives how many engines were built until then."""
    import onnxruntime

    monkeypatch.setenv("DERMEDGE_ENGINES", str(tmp_path / "engines"))
    monkeypatch.setattr(Building, "built", 0)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Building)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))

    def opened(model):
        open_session(model, provider="ort-tensorrt", precision="fp16")
        return Building.built

    return opened


def test_an_engine_of_onnx_runtime_is_built_once_for_each_graph(building, tmp_path):
    assert [building(model) for model in (b"one", b"one", b"other", b"one", b"other")] == [
        *(1, 1, 2, 2, 2)
    ]
    assert len(list((tmp_path / "engines").iterdir())) == 2


def test_an_engine_of_onnx_runtime_that_is_damaged_is_built_again(building, tmp_path):
    building(b"one")
    (engine,) = (tmp_path / "engines").glob("*/*.engine")
    engine.write_bytes(b"on")
    with pytest.raises(SessionError, match="could not deserialize"):
        building(b"one")
    assert building(b"one") == 2


def test_a_graph_that_tensorrt_refuses_leaves_no_engine(building, tmp_path):
    with pytest.raises(SessionError, match="is refused"):
        building(b"refused")
    assert not list((tmp_path / "engines").iterdir())


def test_without_a_folder_an_engine_of_onnx_runtime_is_built_each_time(building, tmp_path):
    (tmp_path / "engines").write_text("a file")
    assert [building(b"one"), building(b"one")] == [1, 2]


def test_the_graph_of_each_precision_is_opened_as_such(make_bundle, monkeypatch):
    from dermedge import analyzer, network

    seen = []

    def spying(model, threads, provider, sha256, precision, targets):
        seen.append(precision)
        return open_session(model, threads, provider, sha256, precision, targets)

    monkeypatch.setattr(network, "open_session", spying)
    analyzer.Analyzer(Bundle.open(make_bundle()))
    assert seen == ["fp32", "fp32"]


def full_sum(channels: int) -> bytes:
    """INT8: the sum of `channels` products of 255 and 127, which 16 bits cannot hold two of."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.uint8),
        "weight": np.full((8, channels, 1, 1), 127, np.int8),
        "ones": np.ones(8, np.float32),
        "zeros": np.zeros(8, np.int8),
        "step": np.array(127 * channels, np.float32),  # 255 steps are the whole sum
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["image", "one", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weight", "ones", "zeros"], ["w"], axis=0),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["sum"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, (1, channels, 4, 4))
    total = helper.make_tensor_value_info("sum", TensorProto.FLOAT, (1, 8, 4, 4))
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "sum", [image], [total], stored)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


@pytest.mark.parametrize("made_for", ["arm", "tensorrt", "android"])
def test_int8_of_another_machine_does_not_saturate_here(made_for):
    session = open_session(full_sum(32), 1, targets=(made_for,))
    (total,) = session.run({"image": np.full((1, 32, 4, 4), 255, np.uint8)}).values()
    assert np.all(total == 255 * 127 * 32)


def test_an_openvino_that_cannot_be_loaded_is_no_crash(monkeypatch, tmp_path):
    (tmp_path / "openvino.py").write_text("raise ImportError('libtbb.so.12: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    with pytest.raises(SessionError, match="OpenVINO cannot be loaded: libtbb"):
        open_session(b"", provider="openvino")


# Java's library and engines have tests of their own; ONNX Runtime's providers are one session.
APART = {*PROVIDERS, *ENGINES, JAVA} - {"cpu"}
HERE = [name for name in installed.providers() if name not in APART]


def test_every_runtime_names_the_packages_that_make_a_choice_stale():
    """Else ONNX Runtime's version stands for its own."""
    assert set(installed._PACKAGES) == set(RUNTIMES) - set(PROVIDERS)


@pytest.mark.parametrize("provider", HERE)
def test_a_run_writes_over_no_earlier_one(tiny_bundle, provider):
    session = open_session(Bundle.open(tiny_bundle).model("segmenter"), 1, provider)
    assert provider not in PROVIDERS or PROVIDERS[provider] in session.runtime
    black, white = (
        {item.name: np.full(item.shape, value, item.dtype) for item in session.inputs}
        for value in (0, 255)
    )
    first = session.run(black)
    before = {name: values.copy() for name, values in first.items()}
    after = session.run(white)
    for name, values in first.items():
        np.testing.assert_array_equal(values, before[name])
        assert (after[name] != values).any()


@pytest.mark.parametrize("provider", HERE)
def test_a_run_that_fails_is_one_line(tiny_bundle, provider):
    session = open_session(Bundle.open(tiny_bundle).model("classifier"), 1, provider)
    with pytest.raises(SessionError, match="failed") as caught:
        session.run({"image": np.zeros((1, 5, 5, 3), np.uint8)})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("machine", "made_for"),
    [("aarch64", "arm"), ("ARM64", "arm"), ("armv7l", "arm"), ("x86_64", "x86"), ("AMD64", "x86")],
)
def test_a_processor_takes_the_graphs_that_are_made_for_it(monkeypatch, machine, made_for):
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert host() == made_for


def _lose(*_):
    from onnxruntime.capi.onnxruntime_pybind11_state import EPFail

    raise EPFail("error 700: device lost")


def test_a_device_that_is_lost_is_no_run_on_the_processor(tiny_bundle, capsys):
    session = open_session(Bundle.open(tiny_bundle).model("classifier"), 1)
    inner = session._session._sess
    used = ("is_webgpu_graph_capture_enabled", "get_providers")
    names = {name: getattr(inner, name, None) for name in used}
    session._session._sess = SimpleNamespace(**names, run=_lose)
    feeds = {item.name: np.zeros(item.shape, item.dtype) for item in session.inputs}
    with pytest.raises(SessionError, match="device lost"):
        session.run(feeds)
    assert capsys.readouterr().out == ""


def test_a_provider_that_fails_prints_nothing_among_the_results(tiny_bundle, monkeypatch, capsys):
    from onnxruntime import InferenceSession

    def fail(*_):
        raise RuntimeError("error 35: driver too old")

    monkeypatch.setattr(InferenceSession, "_create_inference_session", fail)
    with pytest.raises(SessionError, match="driver too old"):
        open_session(Bundle.open(tiny_bundle).model("classifier"), 1)
    assert capsys.readouterr().out == ""


# Stand-ins: the real ones would report from here.
STAND_INS = {
    "onnxruntime.py": """
__version__ = "{version}"
disable_telemetry_events = lambda: print("told to be silent")
get_available_providers = lambda: ["CPUExecutionProvider"]
class SessionOptions:
    add_session_config_entry = lambda *_: None
def InferenceSession(*_, **__):
    raise RuntimeError("it ran")
""",
    "openvino.py": "import openvino_telemetry",
    "openvino_telemetry.py": "print('reported')",
}
CHILD = """
import sys
for name in sys.argv[2].split(): __import__(name)
from dermedge.runtime import SessionError, open_session
try:
    open_session(b"graph", 1, sys.argv[1])
except SessionError as error:
    print(error.code, error)
"""


@pytest.mark.parametrize(
    ("provider", "imports", "version", "switch", "answer"),
    [
        (
            "cpu",
            "dermedge onnxruntime",
            "1.32.0",
            None,
            "told to be silent model.load ONNX Runtime does not",
        ),
        ("cpu", "onnxruntime dermedge", "1.32.0", None, "told to be silent telemetry onnxruntime"),
        ("cpu", "onnxruntime dermedge", "1.32.0", "0", "told to be silent telemetry onnxruntime"),
        (
            "cpu",
            "onnxruntime dermedge",
            "1.32.0",
            "1",
            "told to be silent model.load ONNX Runtime does not",
        ),
        (
            "cpu",
            "onnxruntime dermedge",
            "1.23.2",
            None,
            "told to be silent model.load ONNX Runtime does not",
        ),
        ("openvino", "openvino dermedge", "", None, "reported telemetry openvino was imported"),
    ],
)
def test_a_runtime_that_was_loaded_while_it_reports_is_refused(
    tmp_path, monkeypatch, provider, imports, version, switch, answer
):
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(text.replace("{version}", version))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if switch is not None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", switch)
    paths = [str(tmp_path), *sys.path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    command = [sys.executable, "-c", CHILD, provider, imports]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert " ".join(done.stdout.split()).startswith(answer), done.stdout + done.stderr


def test_the_switches_are_set_whatever_the_environment_says(monkeypatch):
    from dermedge import telemetry

    for name in telemetry.VARIABLES:
        monkeypatch.setenv(name, "0")
    telemetry.disable()
    assert {name: os.environ[name] for name in telemetry.VARIABLES} == telemetry.VARIABLES


def test_openvinos_reporter_cannot_be_imported_and_its_own_stand_in_is_used():
    import dermedge  # noqa: F401

    with pytest.raises(ModuleNotFoundError):
        import openvino_telemetry  # noqa: F401
    pytest.importorskip("openvino")
    from openvino.tools.ovc import telemetry_utils

    assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


@pytest.mark.parametrize("room", ["dermedge", "train", "export", "benchmarks", "edge_app"])
def test_whatever_is_imported_first_sets_the_switches(room, monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    told = "print(os.environ['ORT_DISABLE_TELEMETRY'], 'torch' in sys.modules)"
    check = f"import sys, os, {room}; {told}"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.stdout.split() == ["1", "False"], done.stderr
