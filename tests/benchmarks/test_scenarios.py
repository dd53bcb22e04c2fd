"""MLPerf's scenarios, energy and counts of instructions."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from commands import call
from evaluations import short_bench
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.commands.bench import BENCH
from benchmarks.latency import instructions, power, scenarios, timing
from benchmarks.report.validate import problems
from benchmarks.schema import bench_result
from benchmarks.schema.names import STAGES
from dermedge import UserError
from dermedge.data.synthetic import draw
from dermedge.image.read import write_png


@pytest.mark.parametrize("own", [True, False])
def test_single_stream_keeps_its_rules(own):
    if not own:
        pytest.importorskip("mlperf_loadgen")
    asked = []

    def run(sample: int) -> None:
        asked.append(sample)
        threading.Event().wait(0.001)

    found = scenarios.single_stream(run, 5, seconds=0.3, queries=100, own=own)
    assert len(asked) >= found["queries"] >= 100
    assert set(asked) == set(range(5))
    assert found["seconds"] >= 0.29
    assert 1 <= found["p90_ms"] <= found["early_stopping_p90_ms"]
    assert not found["valid"]  # by MLPerf's rules it was too short


@pytest.mark.parametrize("own", [True, False])
def test_offline_answers_every_sample_with_all_workers(own):
    if not own:
        pytest.importorskip("mlperf_loadgen")
    asked, other = [], threading.Event()

    def first(sample: int) -> None:
        assert other.wait(20)  # is answered only where two work at the same time
        asked.append(sample)

    def second(sample: int) -> None:
        other.set()
        asked.append(sample)

    found = scenarios.offline([first, second], 3, seconds=0.0, queries=64, own=own)
    assert found["queries"] >= 64
    assert len(asked) >= found["queries"]
    assert set(asked) == {0, 1, 2}
    assert found["samples_per_second"] > 0


def test_offline_tells_of_a_worker_that_fails():
    def fail(_):
        raise UserError("the network broke")

    with pytest.raises(UserError, match="broke"):
        scenarios.offline([fail], 1, seconds=0.0, queries=4, own=True)


@pytest.mark.parametrize("own", [True, False])
def test_a_key_ends_a_scenario_at_once(own, monkeypatch):
    if not own:
        pytest.importorskip("mlperf_loadgen")
    asked, waited, begun = [], [], threading.Event()

    def run(sample: int) -> None:
        asked.append(sample)
        if len(waited) > 2:
            begun.set()
        threading.Event().wait(0.001)

    real = scenarios.wait

    def pressed(running) -> None:
        waited.append(running)
        if len(waited) != 3:  # twice it asks how long one takes
            return real(running)
        begun.wait(20)
        raise KeyboardInterrupt

    monkeypatch.setattr(scenarios, "wait", pressed)
    with pytest.raises(KeyboardInterrupt):
        scenarios.offline([run, run], 3, seconds=0.0, queries=100_000, own=own)
    assert len(asked) < 50_000


@given(st.integers(0, 2**31))
def test_early_stopping_states_a_percentile_that_holds(seed):
    taken = np.random.default_rng(seed).exponential(size=400)
    stated = scenarios.early_stopping(taken)
    assert np.percentile(taken, 90) < stated <= taken.max()
    assert scenarios.early_stopping(taken[:63]) is None


def test_early_stopping_is_wrong_as_seldom_as_it_says():
    rng = np.random.default_rng(0)
    truth = -np.log(0.1)
    wrong = np.mean(
        [scenarios.early_stopping(rng.exponential(size=1024)) < truth for _ in range(2000)]
    )
    assert wrong <= 0.015


def test_scenarios_of_a_bundle_fit_the_schema(tiny_bundle, tmp_path, monkeypatch, capsys):
    short = {"seconds": 0.02, "queries": 64}
    single, offline = scenarios.single_stream, scenarios.offline
    monkeypatch.setattr(scenarios, "single_stream", lambda run, n: single(run, n, **short))
    monkeypatch.setattr(scenarios, "offline", lambda runs, n: offline(runs, n, **short))
    short_bench(monkeypatch)
    words = ("--bundle", tiny_bundle, "--threads", 1, "--runs", 2, "--mlperf", "--out", tmp_path)
    write_png(tmp_path / "lesion.png", draw(1, size=(72, 96)).image)
    assert call(BENCH, *words, "--image", tmp_path / "lesion.png") == 0
    told = bench_result.load(tmp_path / "bench.json")
    rows = {(row["scenario"], row["what"]): row for row in told["scenarios"]}
    things = {*told["settings"]["pictures"], "segmenter alone", "classifier alone"}
    assert set(rows) == {(name, what) for name in ("SingleStream", "Offline") for what in things}
    stages = rows["SingleStream", timing.FRAME]["stages"]
    assert [entry["stage"] for entry in stages] == list(STAGES[:-1])
    slowest = max(stages, key=lambda entry: entry["p50_ms"])
    assert 0 < slowest["p50_ms"] <= slowest["p90_ms"] <= slowest["early_stopping_p90_ms"]
    assert rows["SingleStream", "segmenter alone"]["stages"] == []
    assert "NOT VALID by MLPerf's rules" in capsys.readouterr().out
    assert "(not valid)" in (tmp_path / "bench.html").read_text()
    assert any("are too few" in fault for fault in problems(told))


def write(root: Path, files: dict[str, object]) -> Path:
    for name, value in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{value}\n")
    return root


def test_energy_of_a_counter_that_begins_again(tmp_path, monkeypatch):
    zone = "sys/class/powercap/intel-rapl:0"
    files = {"energy_uj": 9_000_000, "max_energy_range_uj": 10_000_000, "name": "package-0"}
    root = write(tmp_path, {f"{zone}/{name}": value for name, value in files.items()})
    monkeypatch.setattr(power, "IDLE_SECONDS", 0)
    meter = power.find(root)

    def run() -> None:
        write(root, {f"{zone}/energy_uj": 1_000_000})

    found = power.energy(meter, run, 0)
    assert meter.source == "RAPL, package-0"
    assert found["analyses"] == 1
    assert found["joules_per_analysis"] == pytest.approx(2)


def test_a_jetson_is_measured_at_the_rail_that_feeds_it(tmp_path, monkeypatch):
    monkeypatch.setattr(power, "IDLE_SECONDS", 0.05)
    monitor = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    rails = {"in1_label": "VDD_IN", "in1_input": 5000, "curr1_input": 1200}
    rails |= {"in2_label": "VDD_CPU_GPU_CV", "in2_input": 5000, "curr2_input": 400}
    meter = power.find(write(tmp_path, {f"{monitor}/{k}": v for k, v in rails.items()}))
    assert meter.source == "INA3221, VDD_IN"
    assert meter.read() == pytest.approx(6)  # W
    found = power.energy(meter, lambda: threading.Event().wait(0.02), 0.1)
    assert found["watts"] == pytest.approx(6, abs=0.01)
    assert found["joules_per_analysis"] * found["analyses"] >= 0.6 * 0.98


def test_a_phone_is_measured_at_its_battery(tmp_path):
    battery = "sys/class/power_supply/battery"
    files = {f"{battery}/current_now": -500_000, f"{battery}/voltage_now": 4_000_000}
    assert power.find(write(tmp_path, files)).read() == pytest.approx(2)


def test_nothing_is_made_up_where_the_device_is_silent(tmp_path):
    assert power.find(tmp_path) is None
    assert power.temperature(tmp_path) is None
    hot = write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": 61_500})
    assert power.temperature(hot) == 61.5


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
def test_preprocessing_and_postprocessing_take_no_more_instructions():
    kept = json.loads(instructions.KEPT.read_text())
    if kept["versions"] != instructions.versions():
        pytest.skip(f"the kept counts are of {kept['versions']}")
    found = instructions.count()
    assert instructions.compare(found, kept["counts"]) == []
    assert all(found[name] > 0.8 * kept["counts"][name] for name in found)  # else: --update


def test_more_instructions_than_allowed_are_told():
    kept = {"prepare": 1000, "lesion": 1000}
    assert instructions.compare({"prepare": 1049, "lesion": 900}, kept) == []
    told = instructions.compare({"prepare": 1100}, kept)
    assert "10 % more than 1,000" in told[0]
    assert "lesion" in told[1]
