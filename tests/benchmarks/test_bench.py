"""`dermedge bench` and its page."""

from __future__ import annotations

import argparse
import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from commands import call
from evaluations import blob, evaluated, short_bench
from jsonschema import Draft202012Validator

from benchmarks.accuracy import examples
from benchmarks.accuracy.figures import Row
from benchmarks.commands import arguments
from benchmarks.commands import bench as bench_command
from benchmarks.commands.bench import BENCH
from benchmarks.commands.corruptions import ROBUSTNESS
from benchmarks.commands.evaluate import EVALUATE
from benchmarks.latency import bench as bench_module
from benchmarks.latency import plan, timing
from benchmarks.report import page, stored
from benchmarks.report import text as plain
from benchmarks.schema import bench_result, names
from dermedge import DISCLAIMER, UserError, cli
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data import load
from dermedge.lesion import quality

SCHEMA = Path(bench_result.__file__).parent / "bench.schema.json"
pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def bench(tiny_bundle, tmp_path_factory) -> tuple[Path, dict]:
    """A bench of one round on a small picture, with every section of the page."""
    out = tmp_path_factory.mktemp("bench")
    cv2.imwrite(str(out / "lesion.png"), blob(60)[0])
    (out / "broken.jpg").write_bytes(b"\xff\xd8 and no more")
    run = out / "segmenter"
    run.mkdir()
    (run / "log.csv").write_text("step,epoch,lr,bce,val_jaccard\n5,1,0.1,0.7,\n10,2,0.1,0.5,0.6\n")
    words = ["--bundle", tiny_bundle, "--image", out / "lesion.png", "--threads", 1, 2]
    words += ["--runs", 2, "--out", out, "--title", "A <title>", "--training-runs", run]
    words += ["--pictures", out / "lesion.png", out / "broken.jpg"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_module, "COLD_STARTS", 1)
        assert call(BENCH, *words) == 0
    return out, json.loads((out / "bench.json").read_text())


def test_bench_json_fits_its_schema(bench):
    _, result = bench
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(result)
    assert result["settings"]["runs"] == 2
    assert not result["quick"]
    assert all(row["peak_bytes"] > 1e7 for row in result["cold_start"])
    cases = {(row["picture"], row["threads"]) for row in result["latency"]}
    assert len(cases) == 4
    assert all(row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"] for row in result["latency"])


def test_the_table_says_that_a_bundle_knows_nothing_of_real_skin(bench):
    assert "trained on generated pictures: not for real skin" in plain.bench(bench[1])


def test_a_processor_without_a_name_is_called_by_its_kind(bench):
    """As in a container on ARM: 'tiny on None' stood there."""
    hardware = bench[1]["hardware"] | {"cpu": None, "machine": "aarch64"}
    assert plain.bench(bench[1] | {"hardware": hardware}).startswith("tiny on aarch64\n")


def test_bench_csv_holds_the_same_figures(bench):
    out, result = bench
    rows = list(csv.DictReader((out / "bench.csv").read_text().splitlines()))
    assert [float(row["p90_ms"]) for row in rows] == [r["p90_ms"] for r in result["latency"]]


def test_page_stands_alone_and_says_what_it_must(bench):
    out, _ = bench
    text = (out / "bench.html").read_text()
    assert DISCLAIMER in text
    assert "Trained on procedural pictures" in text
    assert "A &lt;title&gt;" in text
    assert "Not analysed" in text
    assert 'class="outline over" d="M' in text
    assert not re.search(r'(src|href)="(?!data:|#)', text.replace("xlink:href", "href"))
    assert "url(http" not in text
    assert text.count('role="img"') == text.count("aria-label=")
    assert "#010203" not in text


def test_bench_refuses_figures_of_another_bundle(tiny_bundle, tmp_path):
    old = {"schema": names.EVALUATION, "bundle": {"sha256": "0" * 64}}
    (tmp_path / "old.json").write_text(json.dumps(old))
    words = ("--bundle", tiny_bundle, "--runs", 1, "--out", tmp_path)
    with pytest.raises(UserError, match="another bundle"):
        call(BENCH, *words, "--evaluation", tmp_path / "old.json")
    for part in ({}, {"bundle": {"sha256": Bundle.open(tiny_bundle).sha256}}, {"bundle": []}):
        (tmp_path / "old.json").write_text(json.dumps({"schema": names.EVALUATION, **part}))
        with pytest.raises(UserError, match="incomplete evaluation"):
            call(BENCH, *words, "--evaluation", tmp_path / "old.json")
    (tmp_path / "old.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        call(BENCH, *words, "--evaluation", tmp_path / "old.json")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--training-runs", "no-such-run"),
        ("--pictures", "no-such-picture.jpg"),
        ("--pictures", "empty"),
        ("--data", "csv=empty"),
        ("--report", "empty"),
        ("--out", "a-file"),
        ("--split", "test"),
        ("--split-file", "split.json"),
        ("--limit", "3"),
        ("--baselines", None),
        ("--tta", None),
        ("--ood", "empty"),
        ("--modality", "clinical"),
        ("--leave-out", "a-file"),
        ("--resume", None),
        ("--peers", "a-file"),
        ("--rest", "-1"),
    ],
)
def test_bench_refuses_before_it_times(option, value, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("a-file").touch()
    monkeypatch.setattr(bench_module, "run", lambda *_: pytest.fail("it was timed"))
    given = [option] if value is None else [option, value]
    out = () if option == "--out" else ("--out", "out")
    with pytest.raises((UserError, OSError)) as caught:
        call(BENCH, "--bundle", tiny_bundle, *out, *given)
    assert "\n" not in str(caught.value)
    of_data = ("--split", "--split-file", "--modality", "--leave-out", "--limit")
    if option in (*of_data, "--baselines", "--tta", "--ood"):
        assert str(caught.value) == f"{option} needs --data"


def test_bench_keeps_what_it_timed_where_the_page_fails(tiny_bundle, bench, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise UserError("no page")

    monkeypatch.setattr(bench_module, "run", lambda plan, result, save: save(bench[1]))
    monkeypatch.setattr(page, "render", fail)
    with pytest.raises(UserError, match="no page"):
        call(BENCH, "--bundle", tiny_bundle, "--out", tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text()) == bench[1]
    assert (tmp_path / "bench.csv").read_text() == (bench[0] / "bench.csv").read_text()


@pytest.mark.parametrize(
    ("quick", "before"), [(False, "--mlperf"), (True, "--mlperf"), (False, "")]
)
def test_an_hour_of_another_command_is_not_overwritten(
    quick, before, tiny_bundle, bench, tmp_path, monkeypatch
):
    """The commands of docs/measure.md, one after the other, lost the result of --mlperf."""
    monkeypatch.chdir(tmp_path)
    short_bench(monkeypatch)
    monkeypatch.setattr(bench_module, "run", lambda *_: pytest.fail("it is timed"))
    stated = bench[1] | {"quick": quick, "command": f"{arguments.command()} {before}"}
    Path("bench-tiny").mkdir()
    Path("bench-tiny", "bench.json").write_text(json.dumps(stated))
    refused = not quick and before
    with pytest.raises(UserError if refused else pytest.fail.Exception):
        call(BENCH, "--bundle", tiny_bundle)
    with pytest.raises(pytest.fail.Exception):
        call(BENCH, "--bundle", tiny_bundle, "--out", "bench-tiny")


def test_a_picture_that_cannot_be_judged_gets_no_figures_on_the_page(tiny_bundle, tmp_path):
    cv2.imwrite(str(tmp_path / "dark.png"), np.full((120, 160, 3), 12, np.uint8))
    bundle = Bundle.open(tiny_bundle)
    text = page.render(
        "t", bundle, gallery=examples.analysed(bundle, [(tmp_path / "dark.png", "", None)])
    )
    card = text[text.index('<figure class="card retake">') :].split("</figure>")[0]
    assert "picture quality" in card
    assert quality.TITLES["too_dark"] in card
    assert 'class="risk"' not in card
    assert "Likely" not in card
    assert not re.search(r"[0-9]\.[0-9]{2}", re.sub(r"<svg.*?</svg>", "", card, flags=re.DOTALL))


def test_the_page_names_a_picture_without_its_folders(tiny_bundle, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"words")
    bundle = Bundle.open(tiny_bundle)
    (panel,) = examples.analysed(bundle, [(tmp_path / "a.jpg", "", None)])
    assert panel["error"].startswith("a.jpg: ")


def test_bench_says_in_one_line_that_a_file_is_no_picture(tiny_bundle, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"words")
    with pytest.raises(UserError, match=r"--image: .*a\.jpg"):
        call(BENCH, "--bundle", tiny_bundle, "--image", tmp_path / "a.jpg", "--out", tmp_path)


def test_thread_counts_take_turns_and_opencv_gets_its_threads_back(tiny_bundle):
    before = cv2.getNumThreads()
    frame = timing.pictures([])[timing.FRAME]
    timed = timing.measure(Bundle.open(tiny_bundle), {"frame": frame}, [1, 2], None, 3)
    rows = timing.summarize(timed)
    assert {(row["threads"], row["runs"]) for row in rows} == {(1, 3), (2, 3)}
    assert {row["stage"] for row in rows} == set(names.STAGES)
    assert cv2.getNumThreads() == before


def test_worst_errors_are_the_worst(discs, tmp_path):
    record = load("csv", discs).records[0]
    labels = ("mel", "nv")

    def row(name, malignant, risk, overlap):
        told = replace(record, id=name, image=tmp_path / name, malignant=malignant, label=None)
        stated = np.array([risk, 1 - risk])
        return Row(told, 0, probabilities=stated, counts={names.NETWORKS: (overlap, 10, 10, 9)})

    rows = [row(f"m{k}", True, k / 10, 10 + k) for k in range(6)]
    rows += [row(f"b{k}", False, k / 10, 100) for k in range(6)]
    found = examples.worst_cases(rows, labels, count=2)
    assert [entry["id"] for entry in found] == ["m0", "m1", "m0", "m1", "b5", "b4"]
    assert found[0]["note"] == "Outline: Jaccard 0.33"
    assert found[-1]["note"] == "Truly benign, malignancy 0.40"


def test_a_worst_error_is_shown_as_it_was_measured(make_bundle, discs, monkeypatch):
    """Without the person's age the picture had another risk than the note beside it."""
    bundle = Bundle.open(make_bundle(metadata=("age",)))
    record = replace(load("csv", discs).records[0], age=70.0)

    class Asked(Exception):
        """What was known of the person, and how many views were taken."""

    def analyze(self, picture, name, metadata):
        raise Asked(metadata, len(self._classifier._views))

    monkeypatch.setattr(Analyzer, "analyze", analyze)
    monkeypatch.setattr(page, "render", lambda *_, **__: "")
    measured = None, SimpleNamespace(records=(record,))
    inputs = SimpleNamespace(bundle=bundle, measured=measured, pictures=[], logs=[])
    args = SimpleNamespace(title="t", tta=True, no_metadata=False)
    result = {"worst": [{"id": record.id, "note": ""}], "evaluation": None}
    with pytest.raises(Asked) as asked:
        bench_command._write_page(args, inputs, result, discs / "x.html")
    assert asked.value.args == ({"age": 70.0}, 4)


def test_one_page_with_accuracy_every_execution_and_the_worst_errors(
    tiny_bundle, discs, tmp_path, monkeypatch, capsys
):
    short_bench(monkeypatch)
    monkeypatch.setattr(plan, "QUICK_SECONDS", 0.01)
    robust = tmp_path / "robust"
    words = ["--bundle", str(tiny_bundle), "--data", f"csv={discs}", "--split", "all"]
    few = [*words, "--limit", "10", "--changes", "blur", "--out", str(robust)]
    assert cli.main(["robustness", *few]) == 1
    with pytest.raises(UserError, match="was measured in fp32"):
        stored.robustness(robust / "robustness.json", _in_int8(tiny_bundle))
    words += ["--executions", "--vs", tiny_bundle, "--robustness", robust / "robustness.json"]
    assert call(BENCH, *words, "--threads", 1, "--out", tmp_path) == 1  # two cannot be read
    result = bench_result.load(tmp_path / "bench.json")
    groups = {(f["group"], f["measure"]) for f in result["executions"][0]["figures"]}
    assert {("all", "jaccard"), ("class mel", "auc"), ("skin V-VI", "malignant_auc")} <= groups
    first, *others = result["executions"]
    assert first["times_as_fast"]["ratio"] == 1
    for execution in others:
        assert execution["reason"] is None
        assert all(
            f["difference"] == 0 for f in execution["figures"] if f["difference"] is not None
        )
    assert {entry["kind"] for entry in result["worst"]} == {"outline", "missed", "alarm"}
    text = (tmp_path / "bench.html").read_text()
    for words in ("Pareto front", "By class", "By skin type", "Repeated captures", "Worst errors"):
        assert words in text
    assert text.count('class="outline truth" d="M') == len(result["worst"])
    assert "precisions and runtimes" in capsys.readouterr().out
    for lesions, words in ((page.FEW - 1, "too few to judge by"), (page.FEW, "the same advice")):
        result["robustness"]["repeats"]["lesions"] = lesions
        alone = result | {"executions": None, "evaluation": None, "worst": []}
        alone["robustness"]["data"]["subset"] = "clinical"
        shown = page.render("t", Bundle.open(tiny_bundle), bench=alone)
        assert words in shown
        assert "part &ldquo;all&rdquo;, clinical) get worse" in shown
        # Both were in what the command printed alone.
        assert "the bundle does not say which pictures it learnt from" in shown
        assert "Not read: 2 pictures" in shown
    del alone["robustness"]["data"]["subset"]  # which results of 0.2.0 lack
    shown = page.render("t", Bundle.open(tiny_bundle), bench=alone)
    assert "part &ldquo;all&rdquo;) get worse" in shown


def test_an_outline_on_the_page_is_unsure_but_not_missing(tiny_bundle, discs, monkeypatch):
    monkeypatch.setitem(quality.LIMITS, "no_lesion", quality.Limit(0, 1e-6, 1))
    image = load("csv", discs).records[0].image
    bundle = Bundle.open(tiny_bundle)
    gallery = examples.analysed(bundle, [(Path(image), "", None)])
    text = page.render("t", bundle, gallery=gallery)
    assert 'class="outline over" d="M' in text
    assert "The outline is unsure" in text
    assert "No lesion was found" not in text
    # Where the head says that it is none, nothing is outlined.
    whole = Analyzer.analyze
    refused = {"outlier": 2.5, "outlier_limit": 1.5}
    monkeypatch.setattr(Analyzer, "analyze", lambda *a, **k: replace(whole(*a, **k), **refused))
    (panel,) = examples.analysed(bundle, [(Path(image), "", None)])
    assert panel["outline"] == ""
    assert panel["quality"][0].startswith("No lesion was found")


@pytest.mark.parametrize(
    ("command", "old", "new", "value"),
    [
        (EVALUATE, "--roads", "--executions", "x.csv"),
        (EVALUATE, "--unlike", "--ood", "folder"),
        (BENCH, "--roads", "--executions", None),
        (BENCH, "--unlike", "--ood", "folder"),
        (ROBUSTNESS, "--changes", "--corruptions", "blur"),
    ],
)
def test_old_options_work_with_a_notice_and_are_not_listed(command, old, new, value, capsys):
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    needed = [] if command is BENCH else ["--data", "csv=x"]
    needed += ["--out", "out"] if command is ROBUSTNESS else []
    options = [] if value is None else [value]
    parsed = [parser.parse_args([*needed, name, *options]) for name in (old, new)]
    assert vars(parsed[0]) == vars(parsed[1])
    assert vars(parsed[0]) != vars(parser.parse_args(needed))
    notice = f"dermedge: {old} is called {new} now; the old name will go\n"
    assert capsys.readouterr().err == notice
    assert f"{old} " not in parser.format_help()
    assert f"{new} " in parser.format_help()


def test_an_evaluation_of_version_0_1_0_is_read(tiny_bundle, discs, tmp_path):
    new = json.loads(json.dumps(evaluated(Bundle.open(tiny_bundle), discs)))
    old = {key: value for key, value in new.items() if key not in ("executions", "ood")}
    old["schema"], old["roads"], old["unlike"] = names.OLD_EVALUATIONS[0], {}, None
    old["unfamiliar"] = old.pop("ood_flagged")
    old["metadata"] = {"taken": new["metadata"]["accepted"], "given": new["metadata"]["used"]}
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert stored.evaluation(tmp_path / "old.json", Bundle.open(tiny_bundle)) == new
    with pytest.raises(UserError, match=r"was measured in fp32 .* and int8 .* is to be timed"):
        stored.evaluation(tmp_path / "old.json", _in_int8(tiny_bundle))


def _in_int8(path: Path) -> Bundle:
    bundle = Bundle.open(path)
    models = {
        role: replace(model, precision="int8") for role, model in bundle.manifest.models.items()
    }
    return replace(bundle, manifest=replace(bundle.manifest, models=models))
