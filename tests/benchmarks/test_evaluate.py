"""`dermedge evaluate`: figures, baselines, single networks, pictures out of distribution."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import call
from evaluations import blob, evaluated, network_metrics, rewritten
from jsonschema import Draft202012Validator

from benchmarks.accuracy import baselines, evaluate, figures, pool
from benchmarks.accuracy.evaluate import Options
from benchmarks.accuracy.networks import Networks
from benchmarks.accuracy.pool import Cluster
from benchmarks.accuracy.selection import NothingToMeasure, Selection, select
from benchmarks.accuracy.subset import Subset
from benchmarks.commands import arguments
from benchmarks.commands import corruptions as corruptions_command
from benchmarks.commands import evaluate as evaluate_command
from benchmarks.commands.corruptions import QUALITY, ROBUSTNESS
from benchmarks.commands.evaluate import EVALUATE
from benchmarks.corruptions import out_of_distribution
from benchmarks.report import page
from benchmarks.report import text as plain
from benchmarks.schema import bench_result, names
from dermedge import DISCLAIMER, UserError, cli
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import Thresholds
from dermedge.data import Record, Split, load
from dermedge.data.check import check

SCHEMA = Path(bench_result.__file__).parent / "bench.schema.json"
pytestmark = pytest.mark.usefixtures("few_resamples")


def test_otsu_finds_a_dark_lesion_and_nothing_in_the_dark():
    image, mask = blob(60)
    found = baselines.otsu_mask(image)
    assert (found & mask).sum() / (found | mask).sum() > 0.9
    assert not baselines.otsu_mask(np.zeros((50, 70, 3), np.uint8)).any()


def test_otsu_leaves_the_dark_corners_of_a_dermoscope_out():
    image, mask = blob(60)
    rows, columns = np.ogrid[:120, :160]
    image[np.hypot((rows - 60) / 120, (columns - 80) / 160) > 0.62] = 0
    found = baselines.otsu_mask(image)
    assert (found & mask).sum() / (found | mask).sum() > 0.9


def test_colour_baseline_learns_colours_and_keeps_the_order_of_labels():
    pictures = [blob(30 + n % 5)[0] for n in range(20)] + [blob(150 + n % 5)[0] for n in range(20)]
    features = np.array([baselines.colour_features(picture) for picture in pictures])
    assert features.shape == (40, 87)
    model = baselines.ColourClassifier(features, ["mel"] * 20 + ["nv"] * 20)
    stated = model.probabilities(features, ("nv", "vasc", "mel"))
    assert stated.sum(axis=1) == pytest.approx(1)
    assert (stated[:20].argmax(axis=1) == 2).all()
    assert (stated[20:].argmax(axis=1) == 0).all()
    assert (stated[:, 1] == 0).all()


def test_evaluate_prints_one_object_and_lists_what_it_could_not_read(
    tiny_bundle, discs, tmp_path, capsys
):
    words = ("--bundle", tiny_bundle, "--data", f"csv={discs}", "--split", "all")
    status = call(EVALUATE, *words, "--baselines", "--json", "--out", tmp_path)
    result = json.loads(capsys.readouterr().out)
    assert status == 1
    assert {entry["id"] for entry in result["data"]["unreadable"]} == {"p07", "p08"}
    assert result["data"]["evaluated"] == 38
    methods = {(m["task"], m["name"]): m for m in result["methods"]}
    found = methods["segmentation", names.NETWORKS]["metrics"]
    assert found["jaccard"]["value"] > 0.9
    assert found["jaccard"]["low"] <= found["jaccard"]["value"] <= found["jaccard"]["high"]
    assert methods["segmentation", names.OTSU]["count"] == 38
    assert result["disclaimer"] == DISCLAIMER
    assert {
        group["group"]: group["pictures"]
        for group in result["groups"]
        if group["scale"] == "skin_type"
    } == {
        "I-II": 18,
        "V-VI": 20,
    }
    rows = list(csv.DictReader((tmp_path / "pictures.csv").read_text().splitlines()))
    assert len(rows) == 40
    assert sum(bool(row["error"]) for row in rows) == 2
    assert json.loads((tmp_path / "evaluation.json").read_text()) == result
    # Where somebody keeps pictures is nobody else's business.
    for name in ("evaluation.json", "pictures.csv", "evaluation.html"):
        assert str(discs) not in (tmp_path / name).read_text()
    assert DISCLAIMER in (tmp_path / "evaluation.html").read_text()


def test_a_picture_that_memory_is_short_for_ends_no_evaluation(tiny_bundle, discs, monkeypatch):
    read = evaluate.read_lesion_picture

    def short(path):
        if path.stem == "p03":
            error = cv2.error("Failed to allocate 81000000 bytes")
            error.code = cv2.Error.StsNoMem
            raise error
        return read(path)

    monkeypatch.setattr(evaluate, "read_lesion_picture", short)
    unread = evaluated(Bundle.open(tiny_bundle), discs)["data"]["unreadable"]
    reasons = {entry["id"]: entry["error"] for entry in unread}
    assert reasons["p03"] == "p03.png: not enough memory for this picture"
    assert reasons.keys() == {"p03", "p07", "p08"}


def test_malignancy_is_measured_also_for_classes_that_the_bundle_does_not_know(
    tiny_bundle, discs, monkeypatch
):
    monkeypatch.setattr(evaluate, "commit", lambda mark="": f"ab{mark}")  # of a changed checkout
    data_set = load("csv", discs)
    records = tuple(
        replace(record, label="scc", malignant=True) if record.label == "bcc" else record
        for record in data_set.records
        if record.id not in ("p07", "p08")
    )
    bundle = Bundle.open(tiny_bundle)
    selection = Selection("all", records, len(records), None, "none", None, ())
    result, _ = evaluate.evaluate(bundle, data_set, selection, Options())
    method = next(m for m in result["methods"] if m["task"] == "classification")
    assert result["commit"] == "ab+"
    assert result["data"]["outside_labels"] == 10
    assert method["count"] == 38
    assert method["labelled"] == 28
    assert sum(map(sum, method["confusion"])) == 28
    (line,) = plain.outside(result["data"])
    assert line.endswith("counted for malignancy only")
    assert line in page.render("t", bundle, evaluation=result)
    # Of "other", as `dermedge label` exports it, nobody says whether it is malignant.
    rows = [figures.Row(replace(records[0], label="other", malignant=None), 0)]
    data = evaluate._about_data(data_set, selection, rows, bundle.manifest.labels)
    (line,) = plain.outside(data)
    assert line.endswith("not stated as malignant or benign: in no figure of classes or malignancy")


@pytest.mark.parametrize(
    ("command", "table", "reason"),
    [
        ("evaluate", "image\na.png\n", "nothing to measure"),
        ("bench", "image\na.png\n", "nothing to measure"),
        ("robustness", "image\na.png\n", "nothing to measure"),
        ("quality", "image,diagnosis\nb.png,mel\n", "none of the pictures could be read (b.png"),
    ],
)
def test_a_command_says_in_one_line_that_nothing_can_be_measured(
    command, table, reason, tiny_bundle, tmp_path, capsys
):
    cv2.imwrite(str(tmp_path / "a.png"), blob(60)[0])
    (tmp_path / "b.png").write_bytes(b"not a picture")
    (tmp_path / "data.csv").write_text(table)
    words = ["--bundle", tiny_bundle, "--data", f"csv={tmp_path}", "--split", "all"]
    assert cli.main([command, *map(str, words), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    last = said.err.splitlines()[-1]
    assert last.startswith(f"dermedge: {reason}")
    assert "Traceback" not in said.err
    assert said.out == ""


def test_pictures_that_the_table_names_and_nobody_has_are_no_secret(
    tiny_bundle, discs, tmp_path, capsys
):
    shutil.copytree(discs, tmp_path / "discs")
    (tmp_path / "discs" / "p05.png").unlink()
    words = ("--bundle", tiny_bundle, "--data", f"csv={tmp_path / 'discs'}", "--split", "all")
    call(EVALUATE, *words, "--limit", 4)
    said = capsys.readouterr()
    assert "missing file p05.png" in said.err
    assert "warning: 1 rows or files of csv are missing or malformed" in said.out


@pytest.mark.parametrize("option", ["--csv", "--executions"])
def test_a_folder_in_place_of_a_file_is_refused_before_the_work(
    tiny_bundle, discs, tmp_path, monkeypatch, option
):
    monkeypatch.setattr("benchmarks.commands.evaluate.measure_accuracy", None)
    words = ("--bundle", tiny_bundle, "--data", f"csv={discs}", "--split", "all")
    with pytest.raises(UserError, match="is a folder: name a file"):
        call(EVALUATE, *words, option, tmp_path)


@pytest.mark.parametrize(
    ("command", "work"),
    [
        (ROBUSTNESS, "robustness.robustness"),
        (QUALITY, "quality_check.quality_check"),
    ],
    ids=["robustness", "quality"],
)
def test_a_file_in_place_of_the_folder_is_refused_before_the_work(
    tiny_bundle, discs, tmp_path, monkeypatch, command, work
):
    monkeypatch.setattr(f"benchmarks.corruptions.{work}", None)
    words = ("--bundle", tiny_bundle, "--data", f"csv={discs}", "--split", "all")
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(FileExistsError):
        call(command, *words, "--out", tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "mine"


def test_the_table_says_that_a_bundle_knows_nothing_of_real_skin(tiny_bundle, discs, capsys):
    words = ("--bundle", tiny_bundle, "--data", f"csv={discs}", "--split", "all", "--limit", 4)
    call(EVALUATE, *words)
    assert "trained on generated pictures: not for real skin" in capsys.readouterr().out


def test_differences_to_the_baselines_are_paired(tiny_bundle, discs, tmp_path):
    data_set, bundle = load("csv", discs), Bundle.open(tiny_bundle)
    ids = sorted(record.id for record in data_set.records)
    Split("csv", 0, {"train": tuple(ids[:20]), "val": (), "test": tuple(ids[20:])}).save(
        tmp_path / "split.json"
    )
    selection = select(data_set, bundle, "test", tmp_path / "split.json", baselines=True)
    result, rows = evaluate.evaluate(bundle, data_set, selection, Options(baselines=True))
    values = {
        (method["name"], name): metric["value"]
        for method in result["methods"]
        for name, metric in method["metrics"].items()
    }
    assert [entry["metric"] for entry in result["differences"]] == ["jaccard", "malignant_auc"]
    for entry in result["differences"]:
        ours, simple = (
            values[name, entry["metric"]] for name in (names.NETWORKS, entry["baseline"])
        )
        assert entry["value"] == pytest.approx(ours - simple, abs=2e-6)
        assert entry["low"] <= entry["value"] <= entry["high"]
    # The same masks from both methods differ by nothing in every resample.
    same = [
        replace(row, counts={**row.counts, names.OTSU: row.counts[names.NETWORKS]}) for row in rows
    ]
    found = figures.jaccard_difference(same, names.OTSU)
    assert (found["value"], found["low"], found["high"]) == (0, 0, 0)
    assert "difference to the baseline (95 % interval)" in plain.evaluation(result)
    # A class of one picture.
    ours = next(m for m in result["methods"] if m["name"] == names.NETWORKS and "per_class" in m)
    next(iter(ours["per_class"].values()))["sensitivity"] |= {"low": None, "high": None}
    text = page.render("t", bundle, evaluation=result)
    assert "Difference to the baseline (95 % interval)" in text
    assert "– to –" not in text
    schema = json.loads(SCHEMA.read_text())
    own = schema["properties"]["evaluation"] | {"$defs": schema["$defs"]}
    Draft202012Validator(own).validate(result)


def test_a_second_person_who_drew_is_a_baseline(tiny_bundle, discs, tmp_path):
    data_set, bundle = load("csv", discs), Bundle.open(tiny_bundle)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no mask")
    first, second, third, *_ = sorted(data_set.records, key=lambda record: record.id)
    records = (
        replace(first, second_mask=first.mask),
        replace(second, second_mask=broken),
        third,
    )
    few = replace(data_set, records=records)
    selection = select(few, bundle, "all")
    plainly, _ = evaluate.evaluate(bundle, few, selection, Options())
    result, rows = evaluate.evaluate(bundle, few, selection, Options(baselines=True))
    measured = {method["name"]: method for method in result["methods"]}
    assert measured[names.SECOND_RATER]["count"] == 1
    assert measured[names.SECOND_RATER]["metrics"]["jaccard"]["value"] == 1
    assert names.SECOND_RATER in [entry["baseline"] for entry in result["differences"]]
    assert "1 of 2 masks of the second person cannot be used" in "; ".join(result["warnings"])
    lines = list(csv.DictReader(evaluate.to_csv(rows, bundle.manifest.labels).splitlines()))
    assert [line["second_jaccard"] for line in lines] == ["1.000000", "", ""]
    # Without baselines nobody is compared with, and nothing is amiss.
    assert [method["name"] for method in plainly["methods"]] == [names.NETWORKS] * 2
    assert not any("second person" in line for line in plainly["warnings"])
    assert check(few, progress=False).mask_problems.keys() == {second.id}


def test_pixels_are_counted_at_the_size_of_the_true_mask():
    _, mask = blob(60)
    larger = cv2.resize(mask.astype(np.uint8), (320, 240), interpolation=cv2.INTER_NEAREST) > 0
    tp, fp, fn, tn = evaluate.count_pixels(mask, larger)
    assert tp + fp + fn + tn == 320 * 240
    assert tp / (tp + fp + fn) > 0.95
    assert evaluate.count_pixels(mask, mask) == (mask.sum(), 0, 0, (~mask).sum())


def test_otsu_on_real_dermoscopy(shared_data):
    root = shared_data / "HAM10000"
    if not root.is_dir():
        pytest.skip(f"HAM10000 is not in {shared_data}")
    from dermedge.image.read import read_image, read_mask

    records = [record for record in load("ham10000", root).records[:400:20] if record.mask]
    scores = []
    for record in records:
        truth = read_mask(record.mask)
        found = baselines.otsu_mask(read_image(record.image).pixels)
        tp, fp, fn, _ = evaluate.count_pixels(found, truth)
        scores.append(tp / (tp + fp + fn))
    assert np.mean(scores) > 0.55


def test_a_network_alone_has_the_figures_that_it_has_in_a_pair(full_bundle, people, tmp_path):
    pair = network_metrics(evaluated(full_bundle, people))
    models = full_bundle.manifest.models
    alone = {
        role: rewritten(
            full_bundle,
            tmp_path,
            role,
            models={role: models[role]},
            labels=full_bundle.manifest.labels if role == "classifier" else (),
        )
        for role in models
    }
    outline = evaluated(alone["segmenter"], people)
    assert [method["task"] for method in outline["methods"]] == ["segmentation"]
    assert outline["triage"] == {}
    assert outline["ood_flagged"] is None
    kinds = evaluated(alone["classifier"], people, views=4)
    assert [method["task"] for method in kinds["methods"]] == ["classification"]
    assert kinds["ood_flagged"]["value"] == 0
    assert network_metrics(outline) | network_metrics(kinds) == pair
    assert page.render("t", alone["segmenter"], evaluation=outline).count("Lesion outline") == 1


def test_a_segmenter_alone_has_nothing_to_measure_without_masks(full_bundle, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), blob(60)[0])
    (tmp_path / "data.csv").write_text("image,diagnosis\na.png,mel\n")
    models = {"segmenter": full_bundle.manifest.models["segmenter"]}
    alone = rewritten(full_bundle, tmp_path, "outline", models=models, labels=())
    with pytest.raises(NothingToMeasure, match="has a mask"):
        evaluated(alone, tmp_path)


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ({"subset": Subset("clinical")}, "part 'all' of csv, clinical has a"),
        ({"limit": 1}, "part 'all' of csv, limit 1 has a"),
    ],
)
def test_what_is_left_of_a_part_must_have_something_to_measure(left, said, full_bundle, tmp_path):
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), blob(60)[0])
    table = "image,diagnosis,modality\na.png,,clinical\nb.png,mel,dermoscopic\nc.png,,clinical\n"
    (tmp_path / "data.csv").write_text(table)
    data_set = load("csv", tmp_path)
    assert len(select(data_set, full_bundle, "all").records) == 3
    with pytest.raises(NothingToMeasure, match=said):
        select(data_set, full_bundle, "all", **left)


def test_a_classifier_alone_is_refused_where_it_sees_cropped_lesions(full_bundle, tmp_path):
    model = full_bundle.manifest.models["classifier"]
    cropping = replace(model, preprocessing=replace(model.preprocessing, crop=1.5))
    with pytest.raises(UserError, match="crops, but no segmenter"):
        rewritten(full_bundle, tmp_path, "alone", models={"classifier": cropping})


def test_metadata_can_be_withheld(full_bundle, people):
    told = evaluated(full_bundle, people)
    blind = evaluated(full_bundle, people, metadata=False)
    assert told["metadata"] == {"accepted": ["age"], "used": ["age"]}
    assert blind["metadata"] == {"accepted": ["age"], "used": []}
    found = [network_metrics(result)["melanoma_auc"]["value"] for result in (told, blind)]
    assert found[0] == 1
    assert found[0] != found[1]
    assert "used beside the picture: nothing" in plain.evaluation(blind)


def test_named_classes_and_operating_points_are_those_of_the_bundle():
    labels = ("mel", "nv")
    truth = ("mel", "mel", "nv", "nv", "nv", "nv")
    stated = np.array([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9], [0.1, 0.9]])
    rows = [
        figures.Row(
            Record(str(n), Path(), label=label, malignant=label == "mel"),
            n,
            # An offset made the second picture a melanoma as well.
            likely="mel" if n < 3 else "nv",
        )
        for n, label in enumerate(truth)
    ]
    limits = Thresholds(see_doctor=0.25, urgent=0.85)
    found = figures.classification("x", False, rows, stated, labels, limits)
    value = {name: metric["value"] for name, metric in found["metrics"].items()}
    assert value["balanced_accuracy"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert value["likely_balanced_accuracy"] == pytest.approx((1 + 3 / 4) / 2)
    assert value["class_accuracy"] == pytest.approx(4 / 6, abs=1e-6)
    assert (value["malignant_sensitivity"], value["malignant_specificity"]) == (1, 0.75)
    assert (value["urgent_sensitivity"], value["urgent_specificity"]) == (0.5, 1)
    # Both melanomas are found from 0.3 on; of the nevi one lies above.
    assert value["specificity_at_95"] == 0.75
    assert found["per_class"]["mel"]["sensitivity"]["value"] == 1
    assert found["confusion"] == [[2, 0], [1, 3]]
    plain = figures.classification("x", True, rows, stated, labels)["metrics"]
    assert "likely_balanced_accuracy" not in plain
    assert "urgent_sensitivity" not in plain


def test_an_unnamed_kind_of_lesion_is_no_proof_against_melanoma():
    records = [
        Record("a", Path(), label="mel", malignant=True),
        Record("b", Path(), label="other", malignant=True),  # words that fit no class
        Record("c", Path(), label="other", malignant=False),
    ]
    rows = [figures.Row(record, n) for n, record in enumerate(records)]
    stated = np.array([[0.6, 0.4], [0.9, 0.1], [0.1, 0.9]])
    found = figures.classification("x", True, rows, stated, ("mel", "nv"))
    assert found["metrics"]["melanoma_auc"]["value"] == 1


def test_pictures_that_show_no_lesion_are_told_apart_by_the_distance(
    full_bundle, people, tmp_path, capsys
):
    for name, value in (("white/a", 255), ("white/b", 250), ("gray/a", 110)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((64, 64, 3), value, np.uint8))
    (tmp_path / "white" / "broken.png").write_bytes(b"words")
    (tmp_path / "white" / "scan.DCM").touch()
    result = evaluated(full_bundle, people, ood=tmp_path)
    assert "--ood: 1 pictures are not read (.dcm): save them as PNG" in result["warnings"]
    found = result["ood"]
    assert (found["pictures"], found["unreadable"]) == (3, 1)
    assert found["flagged"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["kinds"]["white"]["auc"]["value"] == 1
    assert found["kinds"]["gray"]["auc"]["value"] == 0
    assert found["kinds"]["gray"]["pictures"] == 1
    assert "which show no lesion (not read: 1)" in plain.evaluation(result)
    # A gap without limits was "unknown" on the page, and one with them had no value.
    gap = {"scale": "skin_type", "measure": "jaccard", "kind": "worst", "groups": ["V-VI"]}
    gap |= {"pictures": 24, "value": 0.625, "low": None, "high": None}
    shown = page.render("t", full_bundle, evaluation=result | {"gaps": [gap]})
    assert "worst group (V-VI): 0.625 (unknown)." in shown
    assert "that show no lesion (not read: 1)" in page.render("t", full_bundle, evaluation=result)


def test_the_working_folder_is_called_by_its_name(tmp_path, monkeypatch):
    """'--ood .' gave a kind without a name, of a folder without one."""
    (tmp_path / "white").mkdir()
    (tmp_path / "white" / "a.png").write_bytes(b"words")
    monkeypatch.chdir(tmp_path / "white")
    assert [one.id for one in evaluate._others(Path("."))] == ["white/a.png"]


def test_ood_needs_a_distance_and_pictures(tiny_bundle, full_bundle, people, tmp_path):
    with pytest.raises(UserError, match="no distance"):
        evaluated(Bundle.open(tiny_bundle), people, ood=tmp_path)
    with pytest.raises(UserError, match="no picture in"):
        evaluated(full_bundle, people, ood=tmp_path)
    with pytest.raises(UserError, match="no folder"):
        evaluated(full_bundle, people, ood=tmp_path / "gone")


def test_plain_skin_is_cut_from_beside_the_lesion_and_inside_the_picture():
    picture, mask = np.zeros((200, 300, 3), np.uint8), np.zeros((200, 300), bool)
    picture[...] = (200, 150, 130)
    picture[:, :20] = 0  # the dark frame
    mask[60:140, 40:140] = True
    picture[mask] = (90, 50, 40)
    found = out_of_distribution.skin(picture, mask)
    assert found.shape[0] == found.shape[1] >= out_of_distribution.LEAST
    assert (found == (200, 150, 130)).all()
    assert out_of_distribution.skin(picture, np.ones_like(mask)) is None


def test_ood_script_writes_kinds_that_are_all_the_same_next_time(people, tmp_path, capsys):
    other = shutil.copytree(people, tmp_path / "other")
    for out in ("one", "two"):
        data = ["--data", f"csv={people}", "--data", f"csv={other}"]  # two of one reader
        words = [*data, "--out", str(tmp_path / out), "--count", "3"]
        out_of_distribution.main(words)
    written = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.png")}
    kinds = {path.name for path in (tmp_path / "one").iterdir()}
    assert kinds == {"surface", "document", "photograph", "skin-csv", "skin-csv.2"}
    for path in written:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    with pytest.raises(UserError, match="not empty"):
        out_of_distribution.main(words)


def test_commands_tell_nothing_of_where_pictures_are_kept(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", "--data", "csv=/home/me/secret/HAM", "--bundle", "models/a.dermbundle"]
    inside, outside = str(tmp_path / "x.json"), "../shared/split.json"
    words += [inside, outside, "--split", "test"]
    # Of these the whole path stood there.
    words += ["--vs", "/me/lr=0.1/b.dermbundle", "--data=csv=/me/part=test/HAM", "csv=~/me/HAM"]
    monkeypatch.setattr("sys.argv", ["dermedge", *words])
    assert arguments.command() == (
        "dermedge evaluate --data csv=HAM --bundle models/a.dermbundle x.json split.json "
        "--split test --vs b.dermbundle --data=csv=HAM csv=HAM"
    )


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        (evaluate_command, ("--csv", "x.csv"), "segmentation: networks of the bundle"),
        (evaluate_command, ("--executions", "x.csv"), "fp32 cpu"),
        (corruptions_command, ("--corruptions", "crop", "--out", "x"), "side that is left"),
    ],
)
def test_a_full_disk_costs_no_figures(
    command, words, said, tiny_bundle, people, tmp_path, monkeypatch, capsys
):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "write_atomic", full)
    kind = EVALUATE if command is evaluate_command else ROBUSTNESS
    data = ("--data", f"csv={people}", "--split", "all", "--limit", 4)
    with pytest.raises(OSError, match="No space left"):
        call(kind, "--bundle", tiny_bundle, *data, "--threads", 1, *words)
    assert said in capsys.readouterr().out


def test_a_command_names_a_data_set_on_another_drive(monkeypatch):
    """Windows has no way from the one drive to the other: it ended in a traceback."""

    def relpath(path):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", relpath)
    monkeypatch.setattr("sys.argv", ["dermedge", "evaluate", "--data", "csv=/secret/HAM", "a.csv"])
    assert arguments.command() == "dermedge evaluate --data csv=HAM a.csv"


def test_throughput_of_an_evaluation(tiny_bundle, discs, monkeypatch):
    from benchmarks.accuracy import evaluation_throughput

    loaded: list[int] = []

    class Counted(Networks):
        def __init__(self, *args, **options):
            loaded.append(1)
            super().__init__(*args, **options)

    monkeypatch.setattr(pool, "Networks", Counted)
    monkeypatch.setattr(evaluation_throughput, "usable_cores", lambda: 2)
    found = evaluation_throughput.measure(
        Bundle.open(tiny_bundle), f"csv={discs}", "all", 9, "command"
    )
    assert len(loaded) == 2 * 2  # a network a thread: to be timed alone, and to evaluate
    assert found["pictures"] == 8  # one does not decode
    assert found["share_of_possible"] > 0
    assert found["evaluate_per_second"] < found["read_per_second"]


@pytest.mark.slow
def test_a_cluster_gives_the_figures_of_one_process(tiny_bundle, discs):
    pytest.importorskip("ray")
    here = evaluated(Bundle.open(tiny_bundle), discs)
    there = evaluated(Bundle.open(tiny_bundle), discs, cluster=Cluster(workers=2))
    for result in (here, there):
        for key in ("date", "seconds"):
            del result[key]
    assert there == here
