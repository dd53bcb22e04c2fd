"""Results of `dermedge bench`: may they be compared, and beside those of other devices?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import call
from evaluations import short_bench
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.commands.bench import BENCH
from benchmarks.latency import bench
from benchmarks.report import compare, page, picture, plots
from benchmarks.report.validate import problems
from benchmarks.schema import bench_result, names
from dermedge import DISCLAIMER, UserError
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.evaluation import paired_timing
from dermedge.image.read import write_png

DEVICES = Path(bench_result.__file__).parents[1] / "results" / "devices"
ODD = st.sampled_from([None, True, -1, 0, 10**400, 1e308, "", "x" * 99, [], {}, [[]], {"a": None}])


@pytest.fixture(scope="module")
def result(tiny_bundle, tmp_path_factory) -> Path:
    """bench.json of 101 rounds on a small picture."""

    out = tmp_path_factory.mktemp("bench")
    write_png(out / "lesion.png", draw(1, size=(72, 96)).image)
    words = ["--bundle", tiny_bundle, "--image", out / "lesion.png", "--threads", 1]
    with pytest.MonkeyPatch.context() as patch:
        short_bench(patch)
        patch.setattr(page, "render", lambda *_, **__: "")
        assert call(BENCH, *words, "--runs", 101, "--out", out, "--vs", tiny_bundle) == 0
    return out / "bench.json"


def changed(result: Path, target: Path, **changes) -> Path:
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(json.loads(result.read_text()) | changes))
    return target


def test_times_are_compared_only_where_nothing_speaks_against_them(result):
    good = comparable(json.loads(result.read_text()))
    bench_result.assess(good)
    assert good["not_comparable"] == []
    case = good["repeatability"]["cases"][0]
    doubts = {
        "a quick run": {"quick": True},
        "interrupted: not measured is energy": {"missing": ["energy"]},
        "other programs took up to 60 % of the cores meanwhile (rounds)": {"others_percent": 60},
        "at least 100": {"settings": good["settings"] | {"runs": 99}},
        "p90 does not repeat": {
            "repeatability": good["repeatability"] | {"cases": [case | {"apart": 0.06}]}
        },
    }
    for words, change in doubts.items():
        stated = good | change
        bench_result.assess(stated)
        assert [doubt for doubt in stated["not_comparable"] if words in doubt], words
        assert len(stated["not_comparable"]) == 1
    busy = good | {"sessions": [*good["sessions"], {"date": "now", "busy_percent": 21}]}
    bench_result.assess(busy)
    assert "busy before 1 of 2 sessions (up to 21 %" in busy["warnings"][0]


@pytest.mark.parametrize(("percent", "said"), [(None, True), (0.0, False)])
def test_a_machine_is_not_called_quiet_where_nobody_knows(percent, said):
    """Android hides the counters: the page said that the machine was quiet."""
    stated = {
        **dict.fromkeys(("quick", "missing", "sessions", "scenarios", "executions"), ()),
        "latency": [{}],
        "others_percent": percent,
        "comparison": None,
        "repeatability": None,
        "settings": {"runs": 100},
        "hardware": {"governor": None},
    }
    bench_result.assess(stated)
    assert [w for w in stated["warnings"] if "is not known here" in w] == stated["warnings"]
    assert bool(stated["warnings"]) is said


def test_what_was_disturbed_is_missing_again(result, tiny_bundle):
    stated = comparable(json.loads(result.read_text()))
    offline = [row for row in stated["scenarios"] if row["scenario"] == "Offline"]
    stated["scenarios"] = [row | {"others_percent": 50.0} for row in stated["scenarios"]]
    pictures = dict.fromkeys(stated["settings"]["pictures"], b"")
    plan = bench.Plan(Bundle.open(tiny_bundle), pictures, [1], "", runs=101, mlperf=True)
    bench.redo(plan, stated)
    assert f"Offline, {offline[0]['what']}" in stated["missing"]
    assert all(
        name.startswith(("Offline", "SingleStream, threads 1")) for name in stated["missing"]
    )
    stated |= {"missing": [], "scenarios": [], "others_percent": 11.0}
    bench.redo(plan, stated)
    assert stated["missing"] == [bench_result.ROUNDS, bench_result.AGAIN]


def test_a_bundle_against_itself_is_about_as_fast(result):
    found = json.loads(result.read_text())["comparison"]
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["turns"] >= 30
    assert found["other"]["sha256"] == json.loads(result.read_text())["bundle"]["sha256"]


def test_ratio_of_times_that_are_known():
    found = paired_timing.ratio(np.full(50, 30.0), np.full(50, 10.0))
    assert (found["ratio"], found["low"], found["high"], found["ms"]) == (3, 3, 3, 10)


def test_compare_puts_devices_side_by_side(result, tmp_path, capsys):
    stated = json.loads(result.read_text())
    slow = [
        row | {k: 3 * v for k, v in row.items() if k.endswith("_ms")} for row in stated["latency"]
    ]
    hardware = stated["hardware"] | {"cpu": "Slow processor"}
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


def test_compare_names_a_result_in_the_working_folder(result, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changed(result, Path("bench.json"))
    changed(result, Path("b") / "bench.json")
    assert call(BENCH, "compare", "bench.json", "b/bench.json", "--json") == 0
    names = dict.fromkeys(row["file"] for row in json.loads(capsys.readouterr().out))
    assert list(names) == ["bench.json", "b/bench.json"]


def test_accuracy_on_other_kinds_of_picture_is_not_compared():
    """Of MILK10k each lesion has one of either kind: as many pictures, but not the same."""
    data = dict.fromkeys(("name", "part", "split_sha256", "limit"), "x") | {"evaluated": 80}
    both = {
        kind: {
            "bundle": {"name": "ours", "sha256": "0"},
            "settings": {"pictures": {}},
            "evaluation": {"data": {**data, "subset": kind}},
        }
        for kind in ("clinical", "dermoscopic")
    }
    assert "not measured on the same pictures" in compare.incomparable(both)[0]
    one = both["clinical"]
    assert not compare.incomparable({"one": one, "two": one})
    for split, same in (("y", False), (None, True)):  # of 0.2.0, of all pictures: it is not known
        two = one | {"evaluation": {"data": one["evaluation"]["data"] | {"split_sha256": split}}}
        assert (not compare.incomparable({"one": one, "two": two})) == same
    withheld = {"metadata": {"accepted": ["age"], "used": []}}
    for other in ({"views": 4}, withheld):
        two = one | {"evaluation": one["evaluation"] | other}
        assert "not measured in the same way" in compare.incomparable({"one": one, "two": two})[0]
    # A newer one under the same name: the device seemed to be faster.
    newer = one | {"bundle": {"name": "ours", "sha256": "1"}}
    assert compare.incomparable({"one": one, "two": newer}) == [
        "ours is not the same bundle in all results"
    ]


def test_devices_are_compared_where_a_figure_cannot_be_computed():
    """Of benign lesions alone there is no AUC: the page ended in a traceback."""
    stated = bench_result.load(DEVICES / "amd-epyc-vnni-2-cores-onnxruntime-fp32.json")
    for method in stated["evaluation"]["methods"]:
        if "malignant_auc" in method["metrics"]:
            method["metrics"]["malignant_auc"] = dict.fromkeys(("value", "low", "high"))
    text = page.render_compared(None, {"one": stated})
    assert names.TITLES["jaccard"] in text
    assert f"{names.TITLES['malignant_auc']} against time" not in text


def test_compare_refuses_what_is_no_result(result, tmp_path):
    (tmp_path / "none.json").write_text("{]")
    with pytest.raises(UserError, match="not JSON"):
        call(BENCH, "compare", tmp_path / "none.json")
    with pytest.raises(UserError, match=r"latency.*does not fit|does not fit.*latency"):
        call(BENCH, "compare", changed(result, tmp_path / "a.json", latency=[]))


@pytest.mark.parametrize("kind", ["compare", "validate"])
def test_compare_and_validate_need_results(kind, capsys):
    with pytest.raises(SystemExit) as ended:
        call(BENCH, kind)
    assert ended.value.code == 2
    assert "FILE" in capsys.readouterr().err


def test_another_kind_of_bench_is_refused(result, capsys):
    with pytest.raises(SystemExit) as ended:
        call(BENCH, "compered", result)
    assert ended.value.code == 2
    assert "'compered'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ("--tta", "compare", "FILE"),
        ("--json", "validate", "FILE"),
        ("--data", "csv=x", "--tta", "validate", "FILE"),
    ],
)
def test_compare_and_validate_refuse_options_of_measuring(words, result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [result if word == "FILE" else word for word in words]
    with pytest.raises(UserError, match=rf"{words[0]} is an option of `dermedge bench`"):
        call(BENCH, *words)
    assert not list(tmp_path.iterdir())


def test_compare_takes_its_options_before_it_for_one_version(result, tmp_path, capsys):
    assert call(BENCH, "--out", tmp_path / "out", "--json", "compare", result) == 0
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        f"dermedge: {option} stands behind 'compare' now; the old place will go"
        for option in ("--out", "--json")
    ]
    assert json.loads(said.out)
    assert (tmp_path / "out" / "compare.html").exists()


@pytest.mark.parametrize("words", [("compare", "--threads", 2), ("validate", "--out", "x")])
def test_compare_and_validate_have_options_of_their_own_only(words, result):
    with pytest.raises(SystemExit):
        call(BENCH, *words, result)


def test_the_same_measured_twice_says_whether_it_repeats(result, tmp_path, capsys):
    stated = json.loads(result.read_text())
    slow = [
        row | {k: 1.2 * v for k, v in row.items() if k.endswith("_ms")} for row in stated["latency"]
    ]
    again = changed(result, tmp_path / "b" / "bench.json", latency=slow)
    hardware = stated["hardware"] | {"cpu": "Slow processor"}
    other = changed(result, tmp_path / "c" / "bench.json", latency=slow, hardware=hardware)
    photos = dict.fromkeys(stated["settings"]["pictures"], "0" * 16)
    settings = stated["settings"] | {"pictures": photos}
    photo = changed(result, tmp_path / "d" / "bench.json", settings=settings)
    copy = changed(other, tmp_path / "e" / "bench.json")  # was "0.0 % apart"
    assert call(BENCH, "compare", result, again, other, photo, copy, "--out", tmp_path) == 0
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("measured twice")]
    assert len(lines) == 2  # a picture each; another processor or photo is no repetition
    assert all("20.0 % apart, above 5 %: not comparable" in line for line in lines)
    assert "Measured twice" in (tmp_path / "compare.html").read_text()


def comparable(stated: dict) -> dict:
    """The result as a quiet machine and the whole of MLPerf's scenarios would have given it."""
    rows = [row for row in stated["latency"] if row["stage"] == "total"]
    cases = [
        {key: row[key] for key in ("picture", "threads", "p90_ms")}
        | {"again_p90_ms": row["p90_ms"], "apart": 0.0}
        for row in rows
    ]
    common = {"generator": "dermedge", "queries": 1024, "seconds": 60.5, "valid": True}
    common |= {"stages": [], "others_percent": 0.0}
    empty = dict.fromkeys(("p90_ms", "early_stopping_p90_ms", "samples_per_second"))
    single = [
        common
        | empty
        | {"what": row["picture"], "scenario": "SingleStream", "threads": row["threads"]}
        | {"p90_ms": row["p90_ms"], "early_stopping_p90_ms": row["max_ms"]}
        for row in rows
    ]
    offline = [
        row | empty | {"scenario": "Offline", "samples_per_second": 40.0, "stages": []}
        for row in single
    ]
    quiet = [session | {"busy_percent": 0.0} for session in stated["sessions"]]
    passes = stated["repeatability"] | {"others_percent": 0.0, "cases": cases}
    comparison = stated["comparison"] | {"others_percent": 0.0}
    return stated | {
        "bundle": stated["bundle"] | {"procedural": False},
        "sessions": quiet,
        "others_percent": 0.0,
        "repeatability": passes,
        "comparison": comparison,
        "scenarios": [*single, *offline],
        "not_comparable": [],
        "warnings": [],
    }


def test_validate_accepts_a_long_run_and_names_what_is_wrong(result, tmp_path, capsys):
    stated = comparable(json.loads(result.read_text()))
    assert call(BENCH, "validate", changed(result, tmp_path / "good.json", **stated)) == 0
    first, *rest = stated["latency"]
    total = next(row for row in stated["latency"] if row["stage"] == "total")
    single = stated["scenarios"][0]
    passes = stated["repeatability"]
    data = {"part": "all", "pictures": 1, "limit": None, "evaluated": 1, "split": "none"}
    data |= {"split_sha256": None, "unreadable": []}
    evaluation = {"schema": "dermedge evaluation 3", "methods": [], "differences": []}
    evaluation |= {"groups": [], "labels": []}
    faults = {
        "quick run": {"quick": True},
        "interrupted": {"missing": ["energy"]},
        "other programs": {"others_percent": 30},
        "generated pictures": {"bundle": stated["bundle"] | {"procedural": True}},
        "percentiles": {"latency": [first | {"p50_ms": first["max_ms"] + 1}, *rest]},
        "one row of each": {"latency": [first, *stated["latency"]]},
        "longer than the whole": {
            "latency": [
                r | {"mean_ms": r["min_ms"] if r["stage"] == "total" else r["max_ms"]}
                for r in stated["latency"]
            ]
        },
        "no time at all": {
            "latency": [
                r | ({k: 0.0 for k in r if k.endswith("_ms")} if r is total else {})
                for r in stated["latency"]
            ]
        },
        "not those of the times": {
            "distribution": [d | {"quantiles_ms": [1.0] * 51} for d in stated["distribution"]]
        },
        "not that of the times": {
            "repeatability": passes
            | {"cases": [case | {"p90_ms": 1.0} for case in passes["cases"]]}
        },
        "miscounted": {
            "repeatability": passes
            | {"cases": [case | {"again_p90_ms": 9 * case["p90_ms"]} for case in passes["cases"]]}
        },
        "not a second pass of each": {"repeatability": passes | {"cases": passes["cases"][:1]}},
        "are too few": {"scenarios": [single | {"queries": 64}, *stated["scenarios"][1:]]},
        "early stopping": {"scenarios": [single | {"p90_ms": 1e6}, *stated["scenarios"][1:]]},
        "is missing: give --mlperf": {"scenarios": None},
        "not published": {"evaluation": evaluation | {"data": {"name": "csv"} | data}},
    }
    for words, change in faults.items():
        path = changed(result, tmp_path / "bad.json", **(stated | change))
        assert call(BENCH, "validate", path) == 1, words
        assert words in capsys.readouterr().out


@given(data=st.data())
@settings(max_examples=150)
def test_validate_survives_whatever_it_is_sent(result, data):
    stated = comparable(json.loads(result.read_text()))
    at = stated
    while True:  # down to a random place, which gets another value
        keys = sorted(at) if isinstance(at, dict) else range(len(at))
        key = data.draw(st.sampled_from(list(keys)))
        deeper = at[key]
        if not (isinstance(deeper, dict | list) and deeper) or data.draw(st.integers(0, 3)) == 0:
            break
        at = deeper
    if data.draw(st.booleans()) and isinstance(at, dict):
        del at[key]
    else:
        at[key] = data.draw(ODD)
    path = result.parent / "odd.json"
    path.write_text(json.dumps(stated))
    try:
        found = problems(bench_result.load(path))
    except UserError as error:
        found = [str(error)]
    assert all("\n" not in fault for fault in found)


@given(st.one_of(st.binary(max_size=60), st.sampled_from([b"NaN", b"[1e999]", b"[" * 10_000])))
def test_validate_refuses_what_is_no_json_of_ours(result, content):
    path = result.parent / "odd.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"odd\.json"):
        bench_result.load(path)


def test_validate_refuses_numbers_that_are_none(result, tmp_path):
    text = result.read_text()
    (tmp_path / "bad.json").write_text(
        text.replace('"others_percent": ', '"others_percent": NaN, "x": ', 1)
    )
    with pytest.raises(UserError, match="not JSON"):
        bench_result.load(tmp_path / "bad.json")


@pytest.mark.parametrize("name", ["_DSC0001.JPG", "a$\\frac$.jpg"])
def test_a_plot_names_pictures_as_they_are_called(name):
    """A name that begins with _ was in no legend, one with two $ ended the command in a
    traceback."""
    times = {"picture": name, "threads": 1, "file": name, "p50_ms": 1.0, "p90_ms": 2.0}
    drawn = plots.distribution({"distribution": [times | {"quantiles_ms": [1.0] * 51}]})
    assert f"{name}, 1 thread</text>" in drawn
    drawn = plots.compared([times])
    assert f"{name}</text>" in drawn  # the legend
    assert f"{name}, 1 thread</text>" in drawn


def test_a_picture_of_the_figures_shows_no_skin_and_says_what_is_not_comparable(result):
    measured = bench_result.load(result)
    for doubts in ([], ["a quick run"]):  # whatever the load of this machine made of it
        text = page.render_picture(measured | {"not_comparable": doubts}, 1400)
        assert ("Times are not comparable." in text) == bool(doubts)
    assert DISCLAIMER in text
    assert "<image" not in text
    assert "<img" not in text


def test_a_picture_of_the_figures_needs_a_browser(result, tmp_path, monkeypatch):
    for found, words in ((None, "install one of chromium"), (shutil.which("false"), "no picture")):
        monkeypatch.setattr(shutil, "which", lambda _, found=found: found)
        with pytest.raises(UserError, match=words):
            picture.main([str(result), "--out", str(tmp_path / "bench.png")])
    assert not (tmp_path / "bench.png").exists()


@pytest.mark.parametrize("path", sorted(DEVICES.glob("*.json")), ids=lambda path: path.stem)
def test_results_of_devices_are_valid(path):
    assert problems(bench_result.load(path)) == []


def test_a_result_of_version_0_1_0_reads_as_one_of_today(tmp_path):
    path = next(path for path in DEVICES.glob("*.json") if "bench 3" in path.read_text()[:200])
    old, new = json.loads(path.read_text()), bench_result.load(path)
    assert new["schema"] == names.BENCH
    assert new["not_comparable"] == old["not_to_be_quoted"]
    assert new["sessions"] == old["sittings"]
    assert new["settings"]["executions"] == old["settings"]["roads"]
    pairs = list(zip(old["roads"], new["executions"], strict=True))
    assert pairs
    assert all(a["road"] == b["execution"] and a["figures"] == b["figures"] for a, b in pairs)
    assert new["evaluation"]["ood"] == old["evaluation"]["unlike"]
    (tmp_path / "new.json").write_text(json.dumps(new))
    assert bench_result.load(tmp_path / "new.json") == new
    mixed = [new | {"roads": None}, old | {"executions": None}]
    mixed += [old | {"settings": old["settings"] | {"executions": {}}}]
    mixed += [old | {"evaluation": old["evaluation"] | {"ood": None}}]
    for result in mixed:
        (tmp_path / "mixed.json").write_text(json.dumps(result))
        with pytest.raises(UserError, match="does not fit"):
            bench_result.load(tmp_path / "mixed.json")


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_nothing_beats_the_pareto_front(points):
    chosen = [points[k] for k in compare.front(points)]
    for ms, accuracy in points:
        assert any(x <= ms and y >= accuracy for x, y in chosen)
    for x, y in chosen:
        assert not any((u < x and v >= y) or (u <= x and v > y) for u, v in points)
