"""A bench that is interrupted leaves a valid result, and goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import call
from evaluations import short_bench

from benchmarks.commands.bench import BENCH
from benchmarks.latency import bench, hardware, in_turns, timing
from benchmarks.latency.hardware import OtherPrograms
from benchmarks.report import stored
from benchmarks.report.validate import problems
from benchmarks.schema import bench_result
from dermedge import UserError
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.evaluation.provenance import commit
from dermedge.image.read import write_png


def test_a_bench_that_is_ended_leaves_a_valid_result_and_goes_on(
    tiny_bundle, tmp_path, monkeypatch, capsys
):
    short_bench(monkeypatch)
    monkeypatch.setattr(OtherPrograms, "percent", lambda *_: 0.0)
    real = timing.measure

    def ended(*args):
        *rest, progress, executions = args

        def stop(done: int) -> None:
            progress(done)
            if done == 4:
                raise KeyboardInterrupt

        return real(*rest, stop, executions)

    write_png(tmp_path / "lesion.png", draw(1, size=(72, 96)).image)
    words = ("--bundle", tiny_bundle, "--image", tmp_path / "lesion.png", "--threads", 1)
    words = (*words, "--runs", 6, "--out", tmp_path, "--vs", tiny_bundle)
    monkeypatch.setattr(timing, "measure", ended)
    monkeypatch.setattr(sys, "argv", ["dermedge", "bench", "--runs", "6"])
    assert call(BENCH, *words) == 130
    part = bench_result.load(tmp_path / "bench.json")
    assert part["missing"][:2] == [bench_result.ROUNDS, bench_result.COLD]
    assert {row["runs"] for row in part["latency"]} <= {3, 4}
    assert any("interrupted" in fault for fault in problems(part))
    page = (tmp_path / "bench.html").read_text()
    assert "interrupted: not measured is rounds; cold start" in page
    assert "--resume" in capsys.readouterr().out

    monkeypatch.setattr(sys, "argv", ["dermedge", "bench", "--resume", "--runs", "6"])
    monkeypatch.setattr(timing, "measure", real)
    monkeypatch.setattr(in_turns, "against", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert call(BENCH, *words, "--resume") == 130
    whole = bench_result.load(tmp_path / "bench.json")
    assert whole["missing"] == [f"in turns with {whole['bundle']['name']} in fp32"]
    assert {row["runs"] for row in whole["latency"]} == {6}
    monkeypatch.undo()
    short_bench(monkeypatch)
    monkeypatch.setattr(OtherPrograms, "percent", lambda *_: 0.0)
    monkeypatch.setattr(timing, "measure", lambda *_: pytest.fail("it was measured again"))
    monkeypatch.setattr(sys, "argv", ["dermedge", "bench", "--runs", "6", "--resume"])
    # A file that it shows and that was made again meanwhile is shown as it is now.
    peer = dict.fromkeys(stored._PEERS, "1") | {
        "bundle_sha256": Bundle.open(tiny_bundle).sha256[:16]
    }
    (tmp_path / "peers.csv").write_text(f"{','.join(peer)}\n{','.join(peer.values())}\n")
    assert call(BENCH, *words, "--resume", "--peers", tmp_path / "peers.csv") == 0
    done = bench_result.load(tmp_path / "bench.json")
    assert (done["missing"], len(done["sessions"])) == ([], 3)
    assert done["latency"] == whole["latency"]
    assert (whole["peers"], len(done["peers"])) == (None, 1)
    assert "interrupted" not in (tmp_path / "bench.html").read_text()
    assert done["comparison"]["turns"] >= 30

    for changed, said in (("power_mode", "power mode"), ("machine", "another machine")):
        with monkeypatch.context() as patch:
            machine = hardware.hardware() | {changed: "15W"}
            patch.setattr(hardware, "hardware", lambda machine=machine: machine)
            with pytest.raises(UserError, match=said):
                call(BENCH, *words, "--resume")

    assert done["versions"]["commit"] == commit("+")
    with monkeypatch.context() as patch:
        patch.setattr(bench, "commit", lambda mark: "other")
        with pytest.raises(UserError, match="other versions"):
            call(BENCH, *words, "--resume")

    monkeypatch.setattr(sys, "argv", ["dermedge", "bench", "--runs", "7", "--resume"])
    with pytest.raises(UserError, match="another command"):
        call(BENCH, *words, "--resume")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_bench_that_is_killed_leaves_what_it_had_measured(sent, tiny_bundle, tmp_path):
    code = f"""
import signal, sys
sys.path.append({str(Path(__file__).parents[1])!r})
from evaluations import short_bench
from pytest import MonkeyPatch
from benchmarks.latency import scenarios
from dermedge.cli import main
short_bench(MonkeyPatch())
scenarios.single_stream = lambda *_: signal.raise_signal({int(sent)})
sys.exit(main(sys.argv[1:]))
"""
    write_png(tmp_path / "lesion.png", draw(1, size=(72, 96)).image)
    words = ["bench", "--mlperf", "--runs", "2", "--threads", "1", "--bundle", str(tiny_bundle)]
    words += ["--image", str(tmp_path / "lesion.png"), "--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, timeout=300)
    assert done.returncode == (130 if sent == signal.SIGTERM else -sent)
    told = bench_result.load(tmp_path / "bench.json")
    assert told["missing"][0].startswith("SingleStream")
    assert told["repeatability"]
    assert (tmp_path / "bench.csv").exists()
    assert (tmp_path / "bench.html").exists() == (sent == signal.SIGTERM)


def test_nothing_to_go_on_with(tiny_bundle, tmp_path):
    with pytest.raises(FileNotFoundError):
        call(BENCH, "--bundle", tiny_bundle, "--resume", "--out", tmp_path)


def test_vs_something_that_is_not_there(tiny_bundle, tmp_path):
    words = ("--bundle", tiny_bundle, "--runs", 2, "--out", tmp_path)
    with pytest.raises(UserError, match="no bundle at"):
        call(BENCH, *words, "--vs", tmp_path / "none.dermbundle")


def test_tuned_asks_for_tune_first(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match="dermedge tune"):
        call(BENCH, "--bundle", tiny_bundle, "--runs", 2, "--out", tmp_path, "--tuned")


def test_other_programs_are_counted_on_the_cores_that_are_on(monkeypatch):
    """With every second core off, half of those that were used were not counted."""
    monkeypatch.setattr(hardware, "system_text", lambda _: "cpu  9\ncpu0 1\ncpu2 1\ncpu4 1\nintr 5")
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: {0, 4}, raising=False)
    core = namedtuple("core", "user idle")
    own = SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=2.0, system=0.0))
    monkeypatch.setattr(hardware.psutil, "Process", lambda: own)
    seen = iter([[core(0, 0)] * 3, [core(2, 8), core(0, 10), core(6, 4)]])
    monkeypatch.setattr(hardware.psutil, "cpu_times", lambda percpu: next(seen))
    others = OtherPrograms()
    others.sample()
    assert others.percent() == 40.0  # 8 of 20 s; what this process took lay before the first


@pytest.mark.parametrize("fault", [NotImplementedError("no file"), PermissionError(13, "denied")])
def test_a_clock_that_cannot_be_read_is_not_known(fault, monkeypatch):
    """It ended a bench in a traceback."""

    def refuse() -> None:
        raise fault

    monkeypatch.setattr(hardware.psutil, "cpu_freq", refuse)
    assert hardware.frequency() is None
