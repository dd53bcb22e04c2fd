"""`dermedge tune`: only what computes the same is timed, and only what is faster is chosen."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from dermedge import cli, tune
from dermedge.bundle import Bundle, Variant, write_bundle
from dermedge.runtime import Road, SessionError, host, open_session


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tune, "providers", lambda: ["cpu"])


@pytest.fixture
def both(tiny_bundle, tmp_path) -> Bundle:
    """A bundle whose classifier comes in INT8, too: here simply the same graph."""
    tiny = Bundle.open(tiny_bundle)
    variant = Variant("classifier-int8.onnx", "int8", (host(),))
    model = replace(tiny.manifest.models["classifier"], variants=(variant,))
    parts = {name: tiny.part(name) for name in tiny.manifest.parts}
    parts[variant.part] = parts["classifier.onnx"]
    manifest = replace(tiny.manifest, models={**tiny.manifest.models, "classifier": model})
    return Bundle.open(write_bundle(tmp_path / "both.dermbundle", manifest, parts))


class Clock:
    """Time that only sessions spend."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opener(clock: Clock, both: Bundle, spent: float, change=lambda values: values):
    """Sessions of which all but the first graph on its own threads take `spent` of its time."""

    def open_(model, threads, provider, sha256):
        session = open_session(model, 1)
        usual, run = threads == 0, session.run

        def timed(feeds):
            clock.now += 0.010 * (1 if usual else spent)
            found = run(feeds)
            return found if usual else {name: change(v) for name, v in found.items()}

        session.run = timed
        return session

    return open_


def of(results, role: str, **wanted) -> list[tune.Result]:
    found = [r for r in results if r.role == role]
    return [r for r in found if all(getattr(r.road, k) == v for k, v in wanted.items())]


def test_the_faster_road_is_chosen_and_used(both, tmp_path, monkeypatch):
    clock = Clock()
    results = tune.tune(both, 1.0, opener(clock, both, 0.5), clock)
    (chosen,) = [r for r in results if r.role == "classifier" and r.chosen]
    assert chosen.road.threads > 0
    assert chosen.ratio == pytest.approx(2.0)
    tune.store(both, results)
    assert tune.load_choice(both)["classifier"] == chosen.road

    from dermedge import analyzer

    seen = []

    def spying(model, threads=0, provider="cpu", sha256=""):
        seen.append((threads, provider))
        return open_session(model, threads, provider, sha256)

    monkeypatch.setattr(analyzer, "open_session", spying)
    analyzer.Analyzer(both, roads=tune.load_choice(both))
    assert (chosen.road.threads, "cpu") in seen


def test_what_is_faster_but_wrong_is_left_out(both):
    clock = Clock()
    wrong = opener(clock, both, 0.1, lambda values: np.roll(values, 1, axis=-1))
    results = tune.tune(both, 1.0, wrong, clock)
    assert all("its answers differ" in r.reason for r in of(results, "classifier", threads=1))
    (chosen,) = [r for r in results if r.role == "classifier" and r.chosen]
    assert chosen.road == Road("fp32", "cpu", 0)


def test_no_finite_numbers_are_left_out(both):
    clock = Clock()
    broken = opener(clock, both, 0.1, lambda values: values * np.float32("nan"))
    results = tune.tune(both, 1.0, broken, clock)
    assert all(
        r.reason == "it gives no finite numbers" for r in of(results, "segmenter", threads=1)
    )


def test_what_is_right_but_slower_is_not_chosen(both):
    clock = Clock()
    results = tune.tune(both, 1.0, opener(clock, both, 1.5), clock)
    for role in ("segmenter", "classifier"):
        (chosen,) = [r for r in results if r.role == role and r.chosen]
        assert chosen.road == Road("fp32", "cpu", 0)


def test_a_runtime_that_does_not_start_is_left_out(both, monkeypatch):
    monkeypatch.setattr(tune, "providers", lambda: ["cpu", "xnnpack"])
    clock = Clock()
    start = opener(clock, both, 0.5)

    def fails(model, threads, provider, sha256):
        if provider == "xnnpack":
            raise SessionError("xnnpack cannot be started here")
        return start(model, threads, provider, sha256)

    results = tune.tune(both, 1.0, fails, clock)
    missing = of(results, "classifier", provider="xnnpack")
    assert missing
    assert all(r.reason == "xnnpack cannot be started here" for r in missing)


def test_one_network_of_both_roles_runs_one_way(make_bundle):
    bundle = Bundle.open(make_bundle(multitask=True))
    clock = Clock()
    results = tune.tune(bundle, 0.5, opener(clock, bundle, 0.5), clock)
    chosen = {r.role: r.road for r in results if r.chosen}
    assert chosen["segmenter"] == chosen["classifier"]


def test_a_choice_of_another_machine_or_bundle_is_not_used(both, tiny_bundle, monkeypatch):
    clock = Clock()
    path = tune.store(both, tune.tune(both, 0.5, opener(clock, both, 0.5), clock))
    assert tune.load_choice(Bundle.open(tiny_bundle)) == {}
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "machine": {**told["machine"], "cpu": "another"}}))
    assert tune.load_choice(both) == {}
    path.write_text("{")
    assert tune.load_choice(both) == {}


def test_the_command_tells_keeps_and_forgets(both, capsys, monkeypatch):
    monkeypatch.setattr(tune, "ROUNDS", (2, 3))
    assert cli.main(["tune", "--bundle", str(both.path), "--seconds", "0.01"]) == 0
    told = capsys.readouterr().out
    assert told.count("* ") == 2
    assert "int8 cpu 1 thread" in told
    assert tune.load_choice(both)
    assert cli.main(["tune", "--bundle", str(both.path), "--forget"]) == 0
    assert tune.load_choice(both) == {}
    assert cli.main(["tune", "--bundle", str(both.path), "--seconds", "0"]) == 2


def test_analyze_takes_a_precision_and_refuses_what_is_not_there(both, tmp_path, capsys):
    from dermedge import procedural
    from dermedge.image import write_png

    picture = tmp_path / "lesion.png"
    write_png(picture, procedural.draw(1, size=(96, 128)).image)
    common = ["analyze", str(picture), "--json", "--bundle", str(both.path)]
    assert cli.main([*common, "--precision", "int8"]) == 2
    assert "has no int8 segmenter" in capsys.readouterr().err
    assert cli.main([*common, "--provider", "cpu"]) == 0


DROPPED = """
import gc, signal, sys, threading
from dermedge.bundle import Bundle
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
