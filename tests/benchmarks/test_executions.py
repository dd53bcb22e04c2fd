"""Every precision and runtime beside the first."""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import cv2
import pytest
from commands import call
from evaluations import rewritten, short_bench

from benchmarks.accuracy import executions
from benchmarks.commands import bench
from benchmarks.commands.bench import BENCH
from benchmarks.commands.evaluate import EVALUATE
from benchmarks.latency import cold_start, in_turns
from benchmarks.latency.plan import Plan
from benchmarks.report import page
from benchmarks.schema.bench_result import in_turns_with
from dermedge import UserError
from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.bundle.manifest import BundleError, Variant
from dermedge.cli.options import in_precision
from dermedge.runtime import ExecutionConfig, host

pytestmark = pytest.mark.usefixtures("few_resamples")


def test_every_precision_and_runtime_beside_the_first(tiny_bundle, discs, tmp_path, capsys):
    path = tmp_path / "executions.csv"
    words = ("--bundle", tiny_bundle, "--data", f"csv={discs}", "--split", "all")
    assert call(EVALUATE, *words, "--executions", path, "--threads", 1) == 1
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert list(rows[0]) == list(executions.COLUMNS)
    assert {row["sha256"] for row in rows} == {Bundle.open(tiny_bundle).sha256[:16]}
    first = [row for row in rows if row["execution"] == "fp32 cpu"]
    assert {row["measure"] for row in first} >= {"malignant_auc", "same_advice"}
    assert all(float(row["difference"]) == 0 for row in first if row["difference"])
    others = {row["execution"] for row in rows} - {"fp32 cpu"}
    assert others  # OpenVINO is among what the tests install
    for row in rows:
        if row["measure"] == "same_advice":
            assert float(row["value"]) == 1  # the same graph
    printed = capsys.readouterr().out
    assert "fp32 cpu" in printed
    # As without --executions: they were left out in silence.
    assert "\nwarning: " in printed
    assert [k for k in range(10) if f"not read: p0{k}: " in printed] == [7, 8]
    with pytest.raises(UserError, match="measures nothing else: leave out --tta"):
        call(EVALUATE, *words, "--executions", path, "--tta")


def test_executions_are_held_against_fp32_where_the_bundle_carries_it(tiny_bundle, tmp_path):
    tiny = Bundle.open(tiny_bundle)
    variant = Variant("classifier-fp32.onnx", "fp32", (host(),))
    model = replace(tiny.manifest.models["classifier"], precision="int8", variants=(variant,))
    models = {**tiny.manifest.models, "classifier": model}
    parts = {name: tiny.part(name) for name in tiny.manifest.parts}
    parts[variant.part] = parts["classifier.onnx"]
    path = write_bundle(tmp_path / "both.dermbundle", replace(tiny.manifest, models=models), parts)
    found = executions.executions(Bundle.open(path))
    assert list(found)[:2] == ["fp32 cpu", "fp32+int8 cpu"]
    assert found["fp32+int8 cpu"]["classifier"].precision == "int8"
    rows, _ = executions.measure(Bundle.open(path), None, 1)
    assert [row["execution"] for row in rows] == list(found)


def test_a_network_for_another_machine_runs_on_the_processor(tiny_bundle, tmp_path):
    tiny = Bundle.open(tiny_bundle)
    model = replace(tiny.manifest.models["classifier"], precision="fp16", targets=("tensorrt",))
    models = {**tiny.manifest.models, "classifier": model}
    parts = {name: tiny.part(name) for name in tiny.manifest.parts}
    path = write_bundle(tmp_path / "slice.dermbundle", replace(tiny.manifest, models=models), parts)
    found = executions.executions(Bundle.open(path))
    assert next(iter(found)) == "fp16+fp32 cpu"
    assert {execution["classifier"].provider for execution in found.values()} == {"cpu"}
    assert "fp16+fp32 cpu+openvino" in found
    rows, _ = executions.measure(Bundle.open(path), None, 1)
    assert [row["execution"] for row in rows] == list(found)
    whole = {role: replace(model, precision="fp16") for role, model in models.items()}
    sliced = replace(tiny, manifest=replace(tiny.manifest, models=whole))
    assert in_precision(sliced, "fp16").manifest.models == whole
    with pytest.raises(BundleError, match="has no int8"):
        in_precision(sliced, "int8")


def test_executions_are_timed_on_one_thread_as_the_page_says(both, monkeypatch):
    """OpenCV had as many as the first of --threads."""
    seen = []
    analyzer = SimpleNamespace(analyze=lambda _: seen.append(cv2.getNumThreads()))
    row = {"execution": "fp32 cpu", "reason": None}
    monkeypatch.setattr(executions, "measure", lambda *_: ([row], []))
    monkeypatch.setattr(executions, "executions", lambda _: {"fp32 cpu": {}})
    monkeypatch.setattr(executions, "Analyzer", lambda *_, **__: analyzer)
    before = cv2.getNumThreads()
    executions.part(None, 1, (), Plan(both, {"a": b""}, [before + 1], "", runs=1), {})
    assert set(seen) == {1}
    assert cv2.getNumThreads() == before


class _Asked(Exception):
    """What was to be started."""


@pytest.mark.parametrize(
    ("segmenter", "tuned", "options"),
    [
        ("fp32", False, ["--provider", "cpu", "--precision", "fp32"]),
        ("int8", False, ["--provider", "cpu"]),
        ("int8", True, []),
    ],
)
def test_a_cold_start_is_tuned_where_the_times_are(
    segmenter, tuned, options, tiny_bundle, monkeypatch
):
    bundle = Bundle.open(tiny_bundle)
    models = dict(bundle.manifest.models)
    models["segmenter"] = replace(models["segmenter"], precision=segmenter)
    bundle = replace(bundle, manifest=replace(bundle.manifest, models=models))

    def start(command: list[str], **_) -> None:
        raise _Asked(command[command.index("--bundle") + 2 : -1])

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(_Asked) as asked:
        cold_start.cold_start(bundle, {"a": b""}, 1, tuned)
    assert asked.value.args == (options,)


def test_a_cold_start_that_fails_says_why(tiny_bundle, monkeypatch):
    """The memory that the process took stood there in place of the reason."""
    child = "import sys; print('dermedge: no such thing\\npeak 1', file=sys.stderr); sys.exit(1)"
    monkeypatch.setattr(cold_start, "_CHILD", child)
    with pytest.raises(UserError, match=r"ended with: dermedge: no such thing$"):
        cold_start.cold_start(Bundle.open(tiny_bundle), {"a": b""}, 1, True)


def test_a_cold_start_tells_its_memory_on_windows_too(monkeypatch, capsys):
    """There is neither /proc nor `resource`: bench ended after its rounds, without a page."""

    def no_proc(path: str) -> None:
        raise FileNotFoundError(path)

    memory = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=5))
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr("psutil.Process", lambda: memory)
    monkeypatch.setattr("dermedge.cli.main", lambda _: 0)
    with pytest.raises(SystemExit):
        exec(cold_start._CHILD, {"open": no_proc})
    assert capsys.readouterr().err == "peak 5\n"


def test_another_bundle_is_run_as_it_was_tuned_too(tiny_bundle, tmp_path, monkeypatch):
    """Tuned was compared with untuned, and the figure did not say so."""
    other = rewritten(Bundle.open(tiny_bundle), tmp_path, "other")
    own = {"classifier": ExecutionConfig("fp32", "cpu", 1)}
    config = {"classifier": ExecutionConfig("fp32", "cpu", 2)}
    stored = {"other": config}
    monkeypatch.setattr("dermedge.tune.load_tuned", lambda b: stored.get(b.manifest.name, own))
    parser = argparse.ArgumentParser()
    bench._measuring_arguments(parser)
    words = ["--bundle", str(tiny_bundle), "--tuned", "--vs"]
    inputs = bench._read(parser.parse_args([*words, str(other.path)]))
    monkeypatch.setattr(in_turns, "Analyzer", lambda *_, executions, **__: executions)

    def turns(sides, *_):
        raise _Asked(sides["other"])

    monkeypatch.setattr(in_turns, "in_turns", turns)
    plan = bench._plan(parser.parse_args([*words, str(other.path)]), inputs, print)
    with pytest.raises(_Asked) as asked:
        plan.later[in_turns_with("other in fp32")](plan, {})
    assert asked.value.args == (config,)
    assert bench._read(parser.parse_args([*words, "fp32"])).other_executions is None
    stored["other"] = {}
    with pytest.raises(UserError, match=r"nothing was chosen for .*other"):
        bench._read(parser.parse_args([*words, str(other.path)]))


def test_another_precision_of_the_bundle_is_timed_and_named(both):
    """It was asked of the graphs of --precision alone, which are of no other; a choice of
    `dermedge tune` was said to be missing. `both` has its classifier in INT8, too."""
    models = dict(both.manifest.models)
    models["segmenter"] = replace(models["segmenter"], precision="fp16")
    parser = argparse.ArgumentParser()
    bench._measuring_arguments(parser)
    words = ["--bundle", str(both.path), "--precision", "fp32"]
    with pytest.raises(BundleError, match="has no int8 segmenter"):
        bench._read(parser.parse_args([*words, "--vs", "int8"]))
    assert in_turns.name_of(replace(both, manifest=replace(both.manifest, models=models))) == (
        "tiny in fp16+fp32"
    )
    for option in ("--tuned", "--executions"):  # which was of this one, not of every precision
        with pytest.raises(UserError, match=f"{option} .*leave out --precision"):
            bench._check(parser.parse_args([*words, option]))
    with pytest.raises(UserError, match=r"--executions .*leave out --precision"):
        call(EVALUATE, *words, "--data", "csv=none", "--executions", "x.csv")


def test_vs_a_bundle_of_one_network_is_refused_before_the_work(both, monkeypatch):
    """It was refused after all rounds, and the page was not written."""
    models = {"segmenter": both.manifest.models["segmenter"]}
    alone = replace(both, manifest=replace(both.manifest, models=models))
    opened = iter([both, alone])
    monkeypatch.setattr(bench, "open_bundle", lambda _: next(opened))
    parser = argparse.ArgumentParser()
    bench._measuring_arguments(parser)
    with pytest.raises(UserError, match=r"--vs: .* has no classifier"):
        bench._read(parser.parse_args(["--vs", str(both.path)]))


def test_a_tuned_run_is_as_right_as_the_graph_that_is_timed(
    tiny_bundle, discs, tmp_path, monkeypatch
):
    """An INT8 graph that says the contrary must not travel under FP32's accuracy."""
    import onnx

    tiny = Bundle.open(tiny_bundle)
    variant = Variant("classifier-int8.onnx", "int8", (host(),))
    graph = onnx.load_from_string(tiny.part("classifier.onnx"))
    weights = next(c for c in graph.graph.initializer if c.name == "weights")
    turned = -onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(turned, "weights"))
    model = replace(tiny.manifest.models["classifier"], variants=(variant,))
    manifest = replace(tiny.manifest, models={**tiny.manifest.models, "classifier": model})
    parts = {name: tiny.part(name) for name in tiny.manifest.parts}
    parts[variant.part] = graph.SerializeToString()
    path = write_bundle(tmp_path / "both.dermbundle", manifest, parts)
    config = ExecutionConfig("int8", "cpu", 2)
    short_bench(monkeypatch)
    monkeypatch.setattr(page, "render", lambda *_, **__: "")
    monkeypatch.setattr("dermedge.tune.load_tuned", lambda _: {"classifier": config})
    words = ["--bundle", path, "--data", f"csv={discs}", "--split", "all", "--runs", 2]
    found = {}
    for name, more in {"plain": [], "tuned": ["--tuned"]}.items():
        assert call(BENCH, *words, *more, "--threads", 1, "--out", tmp_path / name) == 1
        found[name] = json.loads((tmp_path / name / "bench.json").read_text())
    auc = {
        name: next(m for m in result["evaluation"]["methods"] if m["task"] == "classification")
        for name, result in found.items()
    }
    auc = {name: method["metrics"]["malignant_auc"]["value"] for name, method in auc.items()}
    assert auc["tuned"] == pytest.approx(1 - auc["plain"])
    assert auc["plain"] != 0.5
    precisions = {m["role"]: m["precision"] for m in found["tuned"]["bundle"]["models"]}
    assert precisions == {"segmenter": "fp32", "classifier": "int8"}
    assert found["tuned"]["evaluation"]["executions"] == {"classifier": "int8 cpu 1 thread"}
    assert found["tuned"]["settings"]["executions"] == {"classifier": "int8 cpu"}
    with pytest.raises(UserError, match="give one"):
        call(BENCH, *words, "--tuned", "--executions", "--out", tmp_path)
