"""`dermedge tune`: only what computes the same is timed, and only what is faster is chosen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from dermedge import cli, tune
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.bundle.manifest import Variant
from dermedge.evaluation.paired_timing import paired_timing
from dermedge.runtime import ExecutionConfig, SessionError, open_session


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tune, "providers", lambda: ["cpu"])
    monkeypatch.setattr(tune, "PICTURES", 4)  # drawing them is most of the time


class Clock:
    """Time that only sessions spend."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opener(clock: Clock, both: Bundle, spent: float, change=lambda outputs: outputs):
    """Sessions of which all but the first graph on its own threads take `spent` of its time, and
    give outputs that `change` was applied to."""

    def open_(model, threads, provider, sha256, precision, targets):
        session = open_session(model, 1)
        usual, run = threads == 0, session.run

        def timed(feeds):
            clock.now += 0.010 * (1 if usual else spent)
            found = run(feeds)
            return found if usual else change(found)

        session.run = timed
        return session

    return open_


def each(change):
    return lambda outputs: {name: change(values) for name, values in outputs.items()}


def of(results, role: str, **wanted) -> list[tune.Result]:
    found = [r for r in results if r.role == role]
    return [r for r in found if all(getattr(r.execution, k) == v for k, v in wanted.items())]


def test_the_faster_execution_is_chosen_and_used(both, tmp_path, monkeypatch):
    clock = Clock()
    results = tune.tune(both, 1.0, opener(clock, both, 0.5), clock)
    (chosen,) = [r for r in results if r.role == "classifier" and r.chosen]
    assert chosen.execution.threads > 0
    assert chosen.ratio == pytest.approx(2.0)
    tune.store(both, results)
    assert tune.load_tuned(both)["classifier"] == chosen.execution

    from dermedge import analyzer, network

    seen = []

    def spying(model, threads, provider, sha256, precision, targets):
        seen.append((threads, provider))
        return open_session(model, threads, provider, sha256, precision, targets)

    monkeypatch.setattr(network, "open_session", spying)
    analyzer.Analyzer(both, executions=tune.load_tuned(both))
    assert (chosen.execution.threads, "cpu") in seen


def test_what_is_faster_but_wrong_is_left_out(both):
    clock = Clock()
    wrong = opener(clock, both, 0.1, each(lambda values: np.roll(values, 1, axis=-1)))
    results = tune.tune(both, 1.0, wrong, clock)
    assert all("probabilities is off by" in r.reason for r in of(results, "classifier", threads=1))
    (chosen,) = [r for r in results if r.role == "classifier" and r.chosen]
    assert chosen.execution == ExecutionConfig("fp32", "cpu", 0)


def test_no_finite_numbers_are_left_out(both):
    clock = Clock()
    broken = opener(clock, both, 0.1, each(lambda values: values * np.float32("nan")))
    results = tune.tune(both, 1.0, broken, clock)
    assert all(
        r.reason == "it gives no finite numbers" for r in of(results, "segmenter", threads=1)
    )


def _without_first(values):
    return values[..., :-1]


def _one_nan(values):
    values = values.copy()
    values.flat[0] = np.nan
    return values


@pytest.mark.parametrize(
    ("output", "change", "reason"),
    [
        # Tens of thousands of right pixels must not hide seven probabilities.
        ("probabilities", lambda v: np.roll(v, 1, axis=-1), "probabilities is off by"),
        ("probabilities", lambda v: v[:, ::-1], "probabilities is off by"),
        ("probabilities", lambda v: np.full_like(v, 1 / v.shape[1]), "probabilities is off by"),
        ("probabilities", lambda v: v * 0, "probabilities is off by"),
        ("probabilities", lambda v: v + np.float32(0.002), "probabilities is off by"),
        ("probabilities", _one_nan, "no finite numbers"),
        ("mask", _one_nan, "no finite numbers"),
        ("mask", lambda v: v[:, :, ::-1], "mask is off by"),
        ("mask", lambda v: v * 0, "mask is off by"),
        ("activation", lambda v: v * 0, "activation is off by"),
        ("distance", lambda v: v * 2, "distance is off by"),
        ("embedding", _without_first, "embedding has shape"),
        ("probabilities", None, "missing probabilities"),
        ("mask", None, "missing mask"),
    ],
)
def test_each_output_of_a_network_is_compared_on_its_own(make_bundle, output, change, reason):
    bundle, clock = Bundle.open(make_bundle(multitask=True)), Clock()

    def wrong(outputs):
        if change is None:
            return {name: values for name, values in outputs.items() if name != output}
        return {**outputs, output: change(outputs[output])}

    results = tune.tune(bundle, 1.0, opener(clock, bundle, 0.1, wrong), clock)
    assert all(reason in r.reason for r in results if r.execution.threads)
    assert {r.execution for r in results if r.chosen} == {ExecutionConfig("fp32", "cpu", 0)}


def test_what_rounds_otherwise_is_not_refused(make_bundle):
    bundle, clock = Bundle.open(make_bundle(multitask=True)), Clock()
    rounded = each(lambda values: values * np.float32(1 + 1e-6))
    results = tune.tune(bundle, 1.0, opener(clock, bundle, 0.1, rounded), clock)
    assert not any(result.reason for result in results)


def test_a_runtime_that_forgets_what_is_known_of_the_person_is_left_out(make_bundle):
    bundle, clock = Bundle.open(make_bundle(metadata=("age", "sex"))), Clock()
    start = opener(clock, bundle, 0.1)

    def forgets(model, threads, *options):
        session = start(model, threads, *options)
        if threads and any(item.name == "metadata" for item in session.inputs):
            run = session.run
            session.run = lambda feeds: run({**feeds, "metadata": feeds["metadata"] * 0})
        return session

    results = tune.tune(bundle, 1.0, forgets, clock)
    assert all(
        "probabilities" in r.reason for r in of(results, "classifier") if r.execution.threads
    )


def test_a_graph_that_was_made_for_another_machine_is_compared_with_itself(both, monkeypatch):
    """An INT8 graph for TensorRT alone: the processor's own INT8 graph is another one."""
    clock, seen = Clock(), []
    monkeypatch.setattr(tune, "providers", lambda: ["cpu", "cuda"])
    tiny = Bundle.open(both.path)
    variant = Variant("classifier-trt.onnx", "int8", ("tensorrt",))
    model = tiny.manifest.models["classifier"]
    models = {**tiny.manifest.models, "classifier": replace(model, variants=(variant,))}
    parts = {name: tiny.part(name) for name in tiny.manifest.parts if "int8" not in name}
    graph = onnx.load_model_from_string(parts["classifier.onnx"])
    graph.doc_string = "another one"
    parts[variant.part] = graph.SerializeToString()
    manifest = replace(tiny.manifest, models=models, parts={})
    path = write_bundle(both.path.with_name("trt.dermbundle"), manifest, parts)
    start = opener(clock, both, 0.1)

    def wrong_on_gpu(model, threads, provider, *others):
        session = start(model, threads, "cpu", *others)
        seen.append((provider, others[1:]))
        if provider == "cuda":
            run = session.run
            session.run = lambda feeds: {k: v + np.float32(0.12) for k, v in run(feeds).items()}
        return session

    results = tune.tune(Bundle.open(path), 1.0, wrong_on_gpu, clock)
    (int8,) = of(results, "classifier", precision="int8")
    assert "it differs from the same graph in ONNX Runtime" in int8.reason
    # The reference is computed as TensorRT does, not with this processor's sums.
    assert ("cpu", ("int8", ("tensorrt",))) in seen


@pytest.mark.parametrize("spent", [0.5, 2.0])
def test_a_slice_for_another_machine_is_tuned_and_runs(both, monkeypatch, capsys, spent):
    monkeypatch.setattr(tune, "providers", lambda: ["cpu", "cuda"])
    tiny = Bundle.open(both.path)
    role = "classifier"
    first = replace(
        tiny.manifest.models[role], precision="int8", targets=("tensorrt",), variants=()
    )
    manifest = replace(tiny.manifest, models={**tiny.manifest.models, role: first}, parts={})
    parts = {name: tiny.part(name) for name in tiny.manifest.parts if "int8" not in name}
    slice_ = Bundle.open(write_bundle(both.path.with_name("slice.dermbundle"), manifest, parts))
    clock = Clock()
    start = opener(clock, both, spent)
    results = tune.tune(
        slice_,
        1.0,
        lambda model, threads, provider, *others: start(
            model, int(provider == "cuda"), "cpu", *others
        ),
        clock,
    )
    (chosen,) = [r for r in of(results, role) if r.chosen]
    assert chosen.execution == ExecutionConfig("int8", "cuda" if spent < 1 else "cpu", 0)
    assert tune.load_tuned(slice_) == {}
    assert (
        "not made for this processor, which runs it all the same: classifier (for tensorrt);"
        in capsys.readouterr().err
    )
    tune.store(slice_, results)
    assert tune.load_tuned(slice_)[role] == chosen.execution
    assert capsys.readouterr().err == ""
    # Without TensorRT here, the processor computes it.
    tune.store(
        slice_, [replace(r, chosen=r.execution.provider == "cpu") for r in of(results, role)]
    )
    analyzer = Analyzer(slice_, executions=tune.load_tuned(slice_))
    assert analyzer.networks()[role].model.targets == ("tensorrt",)


def test_what_is_right_but_slower_is_not_chosen(both):
    clock = Clock()
    results = tune.tune(both, 1.0, opener(clock, both, 1.5), clock)
    for role in ("segmenter", "classifier"):
        (chosen,) = [r for r in results if r.role == role and r.chosen]
        assert chosen.execution == ExecutionConfig("fp32", "cpu", 0)


@pytest.mark.parametrize("limit", [0.0, 0.05, 0.3, 0.7, 1.0, 1.5, 2.0, 3.0, 20.0])
@pytest.mark.parametrize("spent", [0.5, 1.0, 40.0])
def test_a_limit_holds_and_what_was_not_measured_is_not_chosen(both, limit, spent):
    clock = Clock()
    results = tune.tune(both, 5.0, opener(clock, both, spent), clock, limit=limit)
    longest = 0.010 * max(spent, 1)  # a run is never cut
    assert clock.now <= limit + longest
    for role in ("segmenter", "classifier"):
        (chosen,) = [r for r in results if r.role == role and r.chosen]
        if chosen.execution != ExecutionConfig("fp32", "cpu", 0):
            assert chosen.low > 1
        assert all((r.reason == tune.NO_TIME) == (r.ms is None) for r in of(results, role))
    if limit == 0:
        assert {r.reason for r in results} == {tune.NO_TIME}
    if limit == 20 and spent < 1:
        assert not any(r.reason for r in results)


def test_where_time_is_short_each_graph_is_tried_before_another_count_of_threads(both, monkeypatch):
    monkeypatch.setattr(tune, "usable_cores", lambda: 4)
    monkeypatch.setattr(tune, "providers", lambda: ["cpu", "ort-tensorrt"])
    clock, seen = Clock(), []
    tune.tune(both, 1.0, opener(clock, both, 0.5), clock, seen.append, limit=60.0)
    checked = list(dict.fromkeys(text for text in seen if text.startswith("classifier: checking")))
    assert [text.removeprefix("classifier: checking ") for text in checked] == [
        "fp32 cpu own threads",
        "int8 cpu 4 threads",
        "fp32 cpu 4 threads",
        "int8 cpu 2 threads",
        "fp32 cpu 2 threads",
        "int8 cpu 1 thread",
        "fp32 cpu 1 thread",
    ]


def test_a_runtime_that_builds_for_minutes_is_not_opened_where_time_is_short(both, monkeypatch):
    monkeypatch.setattr(tune, "providers", lambda: ["cpu", "ort-tensorrt"])
    clock, opened = Clock(), []
    start = opener(clock, both, 0.5)

    def spying(*words):
        opened.append(words[2])
        return start(*words)

    results = tune.tune(both, 1.0, spying, clock, limit=60.0)
    assert set(opened) == {"cpu"}
    assert all(
        "takes minutes" in r.reason for r in of(results, "classifier", provider="ort-tensorrt")
    )
    tune.tune(both, 1.0, spying, clock)
    assert "ort-tensorrt" in opened


def test_a_round_that_something_disturbed_is_dropped_for_all():
    clock, ran = Clock(), []

    def way(name, seconds):
        def run(number):
            ran.append((number, name))
            clock.now += seconds + (9 if (number, name) == (1, "b") else 0)

        return run

    ways = {"a": way("a", 0.010), "b": way("b", 0.020)}
    quiet = lambda: ran[-1] != (1, "b")  # noqa: E731
    times = paired_timing(ways, 0.0, (4, 10), clock, quiet=quiet)
    assert {name: values.round(6).tolist() for name, values in times.items()} == {
        "a": [10.0] * 4,
        "b": [20.0] * 4,
    }


def test_a_runtime_that_does_not_start_is_left_out(both, monkeypatch):
    monkeypatch.setattr(tune, "providers", lambda: ["cpu", "xnnpack"])
    clock = Clock()
    start = opener(clock, both, 0.5)

    def fails(model, threads, provider, *others):
        if provider == "xnnpack":
            raise SessionError("xnnpack cannot be started here")
        return start(model, threads, provider, *others)

    results = tune.tune(both, 1.0, fails, clock)
    missing = of(results, "classifier", provider="xnnpack")
    assert missing
    assert all(r.reason == "xnnpack cannot be started here" for r in missing)


def test_one_network_of_both_roles_runs_one_way(make_bundle):
    bundle = Bundle.open(make_bundle(multitask=True))
    clock = Clock()
    results = tune.tune(bundle, 0.5, opener(clock, bundle, 0.5), clock)
    chosen = {r.role: r.execution for r in results if r.chosen}
    assert chosen["segmenter"] == chosen["classifier"]


def test_a_choice_of_another_machine_or_bundle_is_not_used(both, tiny_bundle, monkeypatch):
    clock = Clock()
    path = tune.store(both, tune.tune(both, 0.5, opener(clock, both, 0.5), clock))
    assert tune.load_tuned(Bundle.open(tiny_bundle)) == {}
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "machine": {**told["machine"], "cpu": "another"}}))
    assert tune.load_tuned(both) == {}
    path.write_text("{")
    assert tune.load_tuned(both) == {}


def _stored(both) -> tuple[Path, dict]:
    executions = {
        "segmenter": ExecutionConfig("fp32", "cpu", 0),
        "classifier": ExecutionConfig("int8", "cpu", 1),
    }
    path = tune.store(both, [tune.Result(*item, chosen=True) for item in executions.items()])
    return path, json.loads(path.read_text())


def test_a_choice_that_0_1_0_stored_is_read(both):
    executions = {"classifier": ExecutionConfig("int8", "cpu", 1)}
    path = tune.store(both, [tune.Result(*item, chosen=True) for item in executions.items()])
    content = json.loads(path.read_text())
    content["roads"] = content.pop("executions")
    path.write_text(json.dumps(content))
    assert tune.load_tuned(both) == executions


def _with_execution(content: dict, **execution) -> dict:
    executions = content["executions"]
    return {
        **content,
        "executions": {**executions, "classifier": {**executions["classifier"], **execution}},
    }


@pytest.mark.parametrize(
    "change",
    [
        lambda c: b"{",
        lambda c: b"\xff\xfe",
        lambda c: b'{"\xff"}',
        lambda c: b"[" * 60_000,
        lambda c: b" " * 100_000,
        lambda c: [],
        lambda c: {**c, "executions": []},
        lambda c: {**c, "executions": {"classifier": "cpu"}},
        lambda c: {**c, "executions": {"doctor": c["executions"]["classifier"]}},
        lambda c: _with_execution(c, precision="fp8"),
        lambda c: _with_execution(c, precision="fp16"),
        lambda c: _with_execution(c, precision=["fp32"]),
        lambda c: _with_execution(c, provider="../../evil.so"),
        lambda c: _with_execution(c, threads=10**9),
        lambda c: _with_execution(c, threads=-1),
        lambda c: _with_execution(c, threads="2"),
        lambda c: _with_execution(c, threads=True),
        lambda c: _with_execution(c, surprise=1),
        lambda c: {**c, "bundle_sha256": "0" * 64},
        lambda c: {**c, "machine": {**c["machine"], "onnxruntime": "1.0.0"}},
        lambda c: {**c, "versions": {**c["versions"], "dermedge": "0.0.1"}},
        lambda c: {key: value for key, value in c.items() if key != "versions"},
        lambda c: {key: value for key, value in c.items() if key != "runtimes"},
        lambda c: {**c, "runtimes": ["cpu"]},
        lambda c: {**c, "runtimes": {**c["runtimes"], "\x1b[2J\n": "1"}},
    ],
)
def test_a_stored_choice_that_is_of_no_use_is_ignored_with_a_line(both, change, capsys):
    path, content = _stored(both)
    assert tune.load_tuned(both)
    changed = change(content)
    path.write_bytes(changed if isinstance(changed, bytes) else json.dumps(changed).encode())
    assert tune.load_tuned(both) == {}
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(r"is ignored, (it|the bundle) [a-z]", told)
    assert "run `dermedge tune` again" in told


def test_a_choice_made_with_another_openvino_is_stale(both, monkeypatch, capsys):
    path, content = _stored(both)
    content = _with_execution(content, provider="openvino", precision="fp32", threads=1)
    monkeypatch.setattr(tune, "providers", lambda: ["cpu", "openvino"])
    path.write_text(json.dumps({**content, "runtimes": tune.runtimes()}))
    assert tune.load_tuned(both)["classifier"].provider == "openvino"
    here = tune.version
    monkeypatch.setattr(tune, "version", lambda name: here(name) + (name == "openvino") * " new")
    assert tune.load_tuned(both) == {}
    assert "other runtimes (openvino has another version)" in capsys.readouterr().err


def test_an_engine_that_was_chosen_on_another_gpu_is_stale(both, monkeypatch, capsys):
    """As in a power mode with fewer multiprocessors: it would be refused, and nothing analysed."""
    monkeypatch.setattr(tune.tensorrt, "device", lambda provider: "Orin, 16 multiprocessors")
    monkeypatch.setattr(tune, "providers", lambda: ["cpu", "tensorrt"])
    execution = ExecutionConfig("fp32", "tensorrt", 0)
    path = tune.store(both, [tune.Result("classifier", execution, chosen=True)])
    assert tune.load_tuned(both) == {"classifier": execution}
    monkeypatch.setattr(tune.tensorrt, "device", lambda provider: "Orin, 8 multiprocessors")
    assert tune.load_tuned(both) == {}
    assert f"{path}: this choice of `dermedge tune` is ignored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        (["cpu"], ["cpu", "openvino"], " (openvino is new)"),
        (["cpu", "xnnpack"], ["cpu"], " (xnnpack is gone)"),
        (["cpu", "tensorrt"], ["cpu", "openvino"], " (openvino is new, tensorrt is gone)"),
        (None, ["cpu"], ""),  # a file of before it was noted
    ],
)
def test_a_choice_among_other_runtimes_is_stale(both, then, now, words, monkeypatch, capsys):
    monkeypatch.setattr(tune, "providers", lambda: then or now)
    path, content = _stored(both)
    assert tune.load_tuned(both)
    monkeypatch.setattr(tune, "providers", lambda: now)
    if then is None:
        del content["runtimes"]
        path.write_text(json.dumps(content))
    assert tune.load_tuned(both) == {}
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f"it was measured with other runtimes{words}; run `dermedge tune` again" in printed


def test_a_runtime_has_a_version_that_loads_nothing(tmp_path):
    """Those that are packages here, and one that a folder on Python's path brings."""
    (tmp_path / "tensorrt.py").write_text("raise SystemExit('it was loaded')")
    package = tmp_path / "tensorrt_cu13_bindings-99.1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Name: tensorrt-cu13-bindings\nVersion: 99.1\n")
    code = (
        "import json, sys; from dermedge import tune; print(json.dumps(tune.runtimes())); "
        "assert not {'openvino', 'jnius', 'tensorrt'} & set(sys.modules)"
    )
    paths = os.pathsep.join([str(tmp_path), str(Path(tune.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    found = json.loads(done.stdout)
    assert found["cpu"] == tune.machine()["onnxruntime"]
    assert found["tensorrt"] == "tensorrt-cu13-bindings 99.1"
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_stored_is_no_line(both, capsys):
    assert tune.load_tuned(both) == {}
    assert capsys.readouterr().err == ""


def test_the_command_says_before_it_measures_that_it_cannot_write(
    both, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tune, "tune", lambda *_, **__: pytest.fail("it measured"))
    assert cli.main(["tune", "--bundle", str(both.path), "--seconds", "0.01"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "XDG_CACHE_HOME" in told


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_what_was_found_is_printed_though_it_cannot_be_kept(both, form, monkeypatch, capsys):
    def full(path, *_):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(tune, "ROUNDS", (2, 3))
    monkeypatch.setattr(tune, "write_atomic", full)
    assert cli.main(["tune", "--bundle", str(both.path), "--seconds", "0.01", *form]) == 1
    printed = capsys.readouterr()
    assert "fp32" in printed.out
    assert "No space left on device" in printed.err
    assert "analyze" not in printed.out  # which says that it runs so from now on


def test_the_command_tells_keeps_and_forgets(both, capsys, monkeypatch):
    monkeypatch.setattr(tune, "ROUNDS", (2, 3))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert cli.main(["tune", "--bundle", str(both.path), "--seconds", "0.01"]) == 0
    printed, progress = capsys.readouterr()
    assert progress.endswith("\r")  # the first result stood behind 78 blanks, in the next line
    assert printed.count("* ") == 2
    assert "int8 cpu 1 thread" in printed
    assert "of the segmenter the bundle holds FP32 alone" in printed
    assert tune.load_tuned(both)
    for said in ("is dropped", "was not there"):  # as of another bundle than was tuned
        assert cli.main(["tune", "--bundle", str(both.path), "--forget"]) == 0
        assert capsys.readouterr().out == f"the choice for {both.path} {said}\n"
    assert tune.load_tuned(both) == {}
    assert cli.main(["tune", "--bundle", str(both.path), "--seconds", "0"]) == 2


@pytest.mark.parametrize("words", [["--json"], ["--seconds", "3"]])
def test_what_forgets_a_choice_takes_no_option_of_a_measurement(both, words, capsys):
    assert cli.main(["tune", "--bundle", str(both.path), "--forget", *words]) == 2
    assert capsys.readouterr().err == (
        "dermedge: --forget measures nothing: leave out --json and --seconds\n"
    )


def test_a_bundle_with_fp32_alone_is_named(tiny_bundle, capsys, monkeypatch):
    monkeypatch.setattr(tune, "ROUNDS", (2, 3))
    assert cli.main(["tune", "--bundle", str(tiny_bundle), "--seconds", "0.01"]) == 0
    printed = capsys.readouterr().out
    assert "of the classifier and the segmenter the bundle holds FP32 alone" in printed
    # FP16 is not for every machine, and nothing is made unless it is asked for.
    assert "--precisions fp32 int8` makes INT8" in printed


def test_analyze_takes_a_precision_and_refuses_what_is_not_there(both, tmp_path, capsys):
    from dermedge.data import synthetic as procedural
    from dermedge.image.read import write_png

    picture = tmp_path / "lesion.png"
    write_png(picture, procedural.draw(1, size=(96, 128)).image)
    common = ["analyze", str(picture), "--json", "--bundle", str(both.path)]
    assert cli.main([*common, "--precision", "int8"]) == 2
    assert "has no int8 segmenter" in capsys.readouterr().err
    assert cli.main([*common, "--provider", "cpu"]) == 0


DROPPED = """
import gc, signal, sys, threading
from dermedge.bundle.bundle import Bundle
from dermedge.runtime import open_session
signal.signal(signal.SIGINT, lambda *_: print("heard"))
held = [open_session(Bundle.open(sys.argv[1]).model("classifier"), 1, "openvino")]
thread = threading.Thread(target=lambda: (held.clear(), gc.collect()))
thread.start()
thread.join()
signal.raise_signal(signal.SIGINT)
"""


def test_signals_are_heard_after_another_thread_dropped_a_session(tiny_bundle):
    """OpenVINO's own stack for signals, which it uses where the processor has AMX, must stay."""
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", DROPPED, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
