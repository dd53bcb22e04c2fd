"""Measuring speed: scenarios, energy, interrupted runs, and results of several devices."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import call
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import report
from benchmarks.commands import BENCH
from benchmarks.speed import compare, instructions, latency, power, scenarios
from dermedge import DISCLAIMER, UserError, race
from dermedge.bundle import Bundle
from dermedge.image import write_png
from dermedge.procedural import draw

DEVICES = Path(report.__file__).parent / "results" / "devices"


@pytest.fixture(scope="module")
def result(tiny_bundle, tmp_path_factory) -> Path:
    """bench.json of 101 rounds on a small picture."""

    out = tmp_path_factory.mktemp("bench")
    write_png(out / "lesion.png", draw(1, size=(120, 160)).image)
    words = ["--bundle", tiny_bundle, "--image", out / "lesion.png", "--threads", 1]
    assert call(BENCH, *words, "--runs", 101, "--out", out, "--vs", tiny_bundle) == 0
    return out / "bench.json"


def changed(result: Path, target: Path, **changes) -> Path:
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(json.loads(result.read_text()) | changes))
    return target


# ------------------------------------------------------------------------------ scenarios


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


# ------------------------------------------------------------------------------ energy and heat


def write(root: Path, files: dict[str, object]) -> Path:
    for name, value in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{value}\n")
    return root


def test_energy_of_a_counter_that_begins_anew(tmp_path, monkeypatch):
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


# ------------------------------------------------------------------------------ the bench itself


def test_rounds_that_drift_are_not_to_be_quoted():
    steady = latency.Timed({(1, "a"): [{"total": 10.0 + k % 3} for k in range(200)]})
    slower = latency.Timed({(1, "a"): [{"total": 10.0 + k % 3 + k / 50} for k in range(200)]})
    assert latency.unsteady(steady) < 0.01
    assert latency.unsteady(slower) > latency.REPEATABLE


def test_an_interrupted_bench_leaves_a_valid_result_that_says_so(
    tiny_bundle, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(latency, "cold_start", lambda *_: pytest.fail("it went on"))
    real = latency.measure

    def interrupted(*args):
        *rest, progress, roads = args

        def stop(done: int) -> None:
            progress(done)
            if done == 4:
                raise KeyboardInterrupt

        return real(*rest, stop, roads)

    monkeypatch.setattr(latency, "measure", interrupted)
    words = ("--bundle", tiny_bundle, "--seconds", 600, "--out", tmp_path, "--vs", tiny_bundle)
    assert call(BENCH, *words, "--threads", 1) == 130
    result = compare.load(tmp_path / "bench.json")
    assert "the rest of the rounds" in result["interrupted"]
    assert "cold start" in result["interrupted"]
    assert {row["runs"] for row in result["latency"]} <= {3, 4}
    assert any("interrupted" in fault for fault in compare.problems(result))
    assert "interrupted: not measured is" in (tmp_path / "bench.html").read_text()
    assert "interrupted" in capsys.readouterr().out


def test_a_bundle_against_itself_is_about_as_fast(result):
    found = json.loads(result.read_text())["comparison"]
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["turns"] >= 30
    assert found["other"]["sha256"] == json.loads(result.read_text())["bundle"]["sha256"]


def test_ratio_of_times_that_are_known():
    found = race.ratio(np.full(50, 30.0), np.full(50, 10.0))
    assert (found["ratio"], found["low"], found["high"], found["ms"]) == (3, 3, 3, 10)


def test_vs_something_that_is_not_there(tiny_bundle, tmp_path):
    words = ("--bundle", tiny_bundle, "--runs", 2, "--out", tmp_path)
    with pytest.raises(UserError, match="no bundle at"):
        call(BENCH, *words, "--vs", tmp_path / "none.dermbundle")


def test_tuned_asks_for_tune_first(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError, match="dermedge tune"):
        call(BENCH, "--bundle", tiny_bundle, "--runs", 2, "--out", tmp_path, "--tuned")


def test_scenarios_of_a_bundle_fit_the_schema(tiny_bundle, tmp_path, result, monkeypatch):
    short = {"seconds": 0.02, "queries": 64}
    single, offline = scenarios.single_stream, scenarios.offline
    monkeypatch.setattr(scenarios, "single_stream", lambda run, n: single(run, n, **short))
    monkeypatch.setattr(scenarios, "offline", lambda runs, n: offline(runs, n, **short))
    sources = {latency.FRAME: latency.pictures([])[latency.FRAME]}
    rows = latency._scenarios(Bundle.open(tiny_bundle), sources, [1], None, lambda *_: None)
    assert {row["what"] for row in rows} == {latency.FRAME, "segmenter alone", "classifier alone"}
    assert {row["scenario"] for row in rows} == {"SingleStream", "Offline"}
    told = compare.load(changed(result, tmp_path / "with.json", scenarios=rows))
    assert "NOT VALID by MLPerf's rules" in latency.table(told)
    page = report.render("t", Bundle.open(tiny_bundle), bench=told)
    assert "(not valid)" in page


# ------------------------------------------------------------------------------ several devices


def test_compare_puts_devices_side_by_side(result, tmp_path, capsys):
    told = json.loads(result.read_text())
    slow = [
        row | {k: 3 * v for k, v in row.items() if k.endswith("_ms")} for row in told["latency"]
    ]
    hardware = told["hardware"] | {"cpu": "Slow processor"}
    other = changed(result, tmp_path / "b" / "bench.json", latency=slow, hardware=hardware)
    assert call(BENCH, "compare", result, other, "--out", tmp_path / "out") == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line for line in lines if "(b)" in line or f"({result.parent.name})" in line]
    assert "Slow processor" in names[1]  # the fast one first
    rows = (tmp_path / "out" / "compare.csv").read_text().splitlines()
    assert rows[0].split(",") == list(compare.COLUMNS)
    assert len(rows) == 1 + 2 * 2
    page = (tmp_path / "out" / "compare.html").read_text()
    assert DISCLAIMER in page
    assert "Slow processor" in page
    assert "url(http" not in page


def test_compare_refuses_what_is_no_result(result, tmp_path):
    (tmp_path / "none.json").write_text("{]")
    with pytest.raises(UserError, match="not JSON"):
        call(BENCH, "compare", tmp_path / "none.json")
    with pytest.raises(UserError, match=r"latency.*does not fit|does not fit.*latency"):
        call(BENCH, "compare", changed(result, tmp_path / "a.json", latency=[]))
    with pytest.raises(UserError, match="needs results"):
        call(BENCH, "compare")
    with pytest.raises(UserError, match="not known"):
        call(BENCH, "compered", result)


def test_validate_accepts_a_long_run_and_names_what_is_wrong(result, tmp_path, capsys):
    told = json.loads(result.read_text())
    good = {"warnings": [], "bundle": told["bundle"] | {"procedural": False}}
    assert call(BENCH, "validate", changed(result, tmp_path / "good.json", **good)) == 0
    first = told["latency"][0]
    faults = {
        "quick run": {"quick": True},
        "interrupted": {"interrupted": "energy"},
        "busy before": {"warnings": ["the machine was busy before the measurement began"]},
        "generated pictures": {"bundle": told["bundle"]},
        "percentiles": {"latency": [first | {"p50_ms": first["max_ms"] + 1}, *told["latency"][1:]]},
        "longer than the whole": {
            "latency": [
                r
                | ({"mean_ms": r["min_ms"]} if r["stage"] == "total" else {"mean_ms": r["max_ms"]})
                for r in told["latency"]
            ]
        },
    }
    for words, change in faults.items():
        path = changed(result, tmp_path / "bad.json", **(good | change))
        assert call(BENCH, "validate", path) == 1
        assert words in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(DEVICES.glob("*.json")), ids=lambda path: path.stem)
def test_results_of_devices_are_valid(path):
    assert compare.problems(compare.load(path)) == []


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_nothing_beats_the_pareto_front(points):
    chosen = [points[k] for k in compare.front(points)]
    for ms, accuracy in points:
        assert any(x <= ms and y >= accuracy for x, y in chosen)
    for x, y in chosen:
        assert not any((u < x and v >= y) or (u <= x and v > y) for u, v in points)


# ------------------------------------------------------------------------------ instructions


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
