from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import call
from jsonschema import Draft202012Validator

from benchmarks.accuracy import baselines, evaluate, examples, figures, intervals
from benchmarks.accuracy.evaluate import Options
from benchmarks.accuracy.figures import Row
from benchmarks.accuracy.selection import SEED, NothingToMeasure, Selection, select
from benchmarks.commands import arguments
from benchmarks.commands.bench import BENCH
from benchmarks.commands.corruptions import ROBUSTNESS
from benchmarks.commands.evaluate import EVALUATE
from benchmarks.corruptions import out_of_distribution
from benchmarks.latency import bench as bench_module
from benchmarks.latency import cold_start, timing
from benchmarks.report import cards, curves, page, stored
from benchmarks.report import text as plain
from benchmarks.schema import bench_result, names, tables
from dermedge import DISCLAIMER, UserError, cli
from dermedge.bundle.bundle import ROLES, Bundle, Thresholds, Variant, write_bundle
from dermedge.data import DataSet, Record, Split, load, make_split
from dermedge.data.fingerprint import of_bytes, of_names, of_pictures
from dermedge.data.leak import FILE, TEST, TRAIN, VAL, TrainingPictures, published
from dermedge.evaluation import provenance
from dermedge.lesion import quality
from dermedge.runtime import ExecutionConfig, host

SCHEMA = Path(bench_result.__file__).parent / "bench.schema.json"
LABELS = ("mel", "nv", "bcc", "bkl")


def blob(dark: int, radius: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """A dark disc on bright skin, and its mask."""
    mask = np.zeros((120, 160), np.uint8)
    cv2.circle(mask, (80, 60), radius, 1, cv2.FILLED)
    image = np.full((120, 160, 3), (225, 180, 160), np.uint8)
    image[mask > 0] = (dark, dark * 2 // 3, dark // 2)
    return image, mask.astype(bool)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Forty pictures of twenty lesions in the generic CSV layout; two of them do not decode."""
    root = tmp_path_factory.mktemp("data")
    rows = []
    for number in range(40):
        label = LABELS[number // 2 % 4]
        image, mask = blob({"mel": 30, "nv": 110, "bcc": 60, "bkl": 90}[label] + number % 3)
        cv2.imwrite(str(root / f"p{number:02}.png"), image[..., ::-1])
        cv2.imwrite(str(root / f"p{number:02}_mask.png"), mask.astype(np.uint8) * 255)
        rows.append(
            {
                "image": f"p{number:02}.png",
                "mask": f"p{number:02}_mask.png",
                "diagnosis": label,
                "lesion_id": f"l{number // 2}",
                "skin_type": number // 20 * 4 + 1,
            }
        )
    for number in (7, 8):
        (root / f"p{number:02}.png").write_bytes(b"not a picture")
    with open(root / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


def with_split(bundle: Path, split: Split, folder: Path) -> Path:
    split.save(folder / "split.json")
    opened = Bundle.open(bundle)
    parts = {name: opened.part(name) for name in opened.manifest.parts}
    parts["split.json"] = (folder / "split.json").read_bytes()
    return write_bundle(folder / "split.dermbundle", opened.manifest, parts)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 60)


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
    tiny_bundle, data, tmp_path, capsys
):
    words = ("--bundle", tiny_bundle, "--data", f"csv={data}", "--split", "all")
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
    assert {group["skin_type"]: group["pictures"] for group in result["groups"]} == {
        "I-II": 18,
        "V-VI": 20,
    }
    rows = list(csv.DictReader((tmp_path / "pictures.csv").read_text().splitlines()))
    assert len(rows) == 40
    assert sum(bool(row["error"]) for row in rows) == 2
    assert json.loads((tmp_path / "evaluation.json").read_text()) == result
    assert DISCLAIMER in (tmp_path / "evaluation.html").read_text()


def test_malignancy_is_measured_also_for_classes_that_the_bundle_does_not_know(tiny_bundle, data):
    data_set = load("csv", data)
    records = tuple(
        replace(record, label="scc", malignant=True) if record.label == "bcc" else record
        for record in data_set.records
        if record.id not in ("p07", "p08")
    )
    bundle = Bundle.open(tiny_bundle)
    selection = Selection("all", records, len(records), None, "none", None, ())
    result, _ = evaluate.evaluate(bundle, data_set, selection, Options())
    method = next(m for m in result["methods"] if m["task"] == "classification")
    assert result["data"]["outside_labels"] == 10
    assert method["count"] == 38
    assert method["labelled"] == 28
    assert sum(map(sum, method["confusion"])) == 28


def test_warns_where_pictures_or_their_lesions_were_trained_on(tiny_bundle, data, tmp_path):
    data_set = load("csv", data)
    bundle = Bundle.open(with_split(tiny_bundle, make_split(data_set), tmp_path))
    assert select(data_set, bundle, "test").warnings == ()
    assert "were in the training part" in select(data_set, bundle, "train").warnings[0]
    ids = sorted(record.id for record in data_set.records)
    # One picture of each lesion trained on, the other one measured.
    leaky = Split("csv", 0, {"train": tuple(ids[::2]), "val": (), "test": tuple(ids[1::2])})
    bundle = Bundle.open(with_split(tiny_bundle, leaky, tmp_path))
    assert select(data_set, bundle, "test").warnings[0].startswith("20 of 20 pictures")
    unknown = select(data_set, Bundle.open(tiny_bundle), "test").warnings
    assert "unknown" in unknown[0]


def test_warns_of_each_network_where_they_had_different_splits(tiny_bundle, data, tmp_path):
    data_set = load("csv", data)
    ids = sorted(record.id for record in data_set.records)
    clean = Split("csv", 0, {"train": tuple(ids[:20]), "val": (), "test": tuple(ids[20:])})
    bundle = Bundle.open(with_split(tiny_bundle, clean, tmp_path))
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    replace(clean, data_set="isic2017").save(tmp_path / "other.json")
    parts["split-segmenter.json"] = (tmp_path / "other.json").read_bytes()
    both = write_bundle(tmp_path / "both.dermbundle", bundle.manifest, parts)
    selection = select(data_set, Bundle.open(both), "test")
    assert [record.id for record in selection.records] == ids[20:]
    assert len(selection.warnings) == 1
    assert selection.warnings[0].startswith("the segmenter was trained on isic2017")


def test_a_stored_split_serves_only_a_data_set_with_all_of_its_pictures(
    tiny_bundle, data, tmp_path
):
    data_set = load("csv", data)
    bundle = Bundle.open(with_split(tiny_bundle, make_split(data_set), tmp_path))
    # Another set read by the same reader: some ids are the same by chance, the others are not.
    records = tuple(
        record if number < 10 else replace(record, id=f"other-{record.id}")
        for number, record in enumerate(data_set.records)
    )
    other = replace(data_set, records=records)
    selection = select(other, bundle, "test")
    assert selection.source == f"made here with seed {SEED}"
    assert "30 pictures of its split are not here" in selection.warnings[0]
    assert "new split" in selection.warnings[1]
    grown = replace(data_set, records=(*data_set.records, records[-1]))
    assert "nothing of 1 pictures" in select(grown, bundle, "test").warnings[0]
    whole = select(other, bundle, "all", baselines=True)
    assert len(whole.records) == 40
    assert len(whole.warnings) == 1
    assert "of 40 pictures have the id" in whole.warnings[0]
    assert whole.train == ()


def with_list(bundle: Bundle, split: Split, prints, folder: Path, **facts) -> Bundle:
    """The bundle as if both networks were trained on `split`; `prints` are by part."""
    use = {"train": TRAIN | TRAIN << 4, "val": VAL | VAL << 4, "test": TEST}
    lists = [
        TrainingPictures(found, np.full(len(found), use[part], np.uint8), **facts)
        for part, found in prints.items()
    ]
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    training = [
        {"role": role, "data_set": split.data_set, "split_sha256": split.sha256} for role in ROLES
    ]
    manifest = replace(bundle.manifest, training_data=tuple(training))
    path = write_bundle(folder / "list.dermbundle", manifest, {**parts, FILE: published(lists)})
    return Bundle.open(path)


@pytest.fixture(scope="module")
def distinct(tmp_path_factory) -> DataSet:
    """Forty pictures of twenty lesions, no two of which look alike."""
    root = tmp_path_factory.mktemp("distinct")
    rng = np.random.default_rng(1)
    rows = ["image,diagnosis,lesion_id"]
    for number in range(40):
        coarse = rng.integers(60, 230, (8, 8, 3), np.uint8)
        pixels = cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / f"p{number:02}.png"), pixels)
        rows.append(f"p{number:02}.png,{LABELS[number // 2 % 4]},l{number // 2}")
    (root / "data.csv").write_text("\n".join(rows))
    return load("csv", root)


@pytest.mark.parametrize("seed", [SEED, 5])
def test_the_test_part_is_found_without_any_id_in_the_bundle(tiny_bundle, distinct, tmp_path, seed):
    data_set, tiny = distinct, Bundle.open(tiny_bundle)
    split = make_split(data_set, seed=seed)
    prints = {p: of_bytes(split.select(data_set.records, p)) for p in split.parts}
    bundle = with_list(tiny, split, prints, tmp_path)
    for part in ("train", "val", "test"):
        selection = select(data_set, bundle, part)
        assert [record.id for record in selection.records] == list(split.parts[part])
        assert ("made again" in selection.source) == (seed == SEED)
    assert select(data_set, bundle, "test").warnings == ()
    (warning,) = select(data_set, bundle, "train").warnings
    assert "were in the training part of the bundle" in warning
    assert warning.startswith(f"{len(split.parts['train'])} of {len(split.parts['train'])} pic")
    # A part of the data set is another one: nothing is known of where its pictures belong.
    fewer = replace(data_set, records=data_set.records[:20])
    assert select(fewer, bundle, "test").source == f"made here with seed {SEED}"


def test_overlap_is_found_by_number_whatever_stands_around_it(tiny_bundle, distinct, tmp_path):
    data_set, tiny = distinct, Bundle.open(tiny_bundle)
    names = [f"ISIC_{number:07}" for number in range(40)]
    split = Split("isic2017", 0, {"train": tuple(names[:33]), "val": tuple(names[33:]), "test": ()})
    prints = {part: of_names(ids) for part, ids in split.parts.items()}
    bundle = with_list(tiny, split, prints, tmp_path, unknown=("old-run",))
    ids = [f"ISIC_{number:07}{'_downsampled' if number % 5 else ''}" for number in range(40)]
    pairs = zip(data_set.records, ids, strict=True)
    records = tuple(replace(record, id=name, lesion_id=None) for record, name in pairs)
    warnings = select(replace(data_set, name="isic2019", records=records), bundle, "all").warnings
    assert warnings[0].startswith("33 of 40 pictures, or their lesions or patients, were in the tr")
    assert "(33 by ISIC number)" in warnings[0]
    assert warnings[1].startswith("7 of 40 pictures, or their lesions or patients, were in the val")
    assert "old-run" in warnings[2]
    assert len(warnings) == 3
    # Bundles of the first version had the ids; the same numbers are found in them.
    old = Bundle.open(with_split(tiny_bundle, split, tmp_path))
    found = select(replace(data_set, name="isic2019", records=records), old, "all").warnings
    assert "33 of 40 pictures were in its training part" in found[0]
    # Nothing in common: that is said, and what cannot be known.
    (warning, _) = select(data_set, bundle, "all").warnings
    assert "none of these pictures was found in its training" in warning
    assert "cannot be checked" in warning


def test_turned_copies_under_other_names_are_found(tiny_bundle, tmp_path):
    rng = np.random.default_rng(0)
    rows = ["image,diagnosis"]
    (tmp_path / "turned").mkdir()
    learnt = []
    for number in range(6):
        coarse = rng.integers(60, 230, (8, 8, 3), np.uint8)
        pixels = cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
        cv2.imwrite(str(tmp_path / "turned" / f"x{number}.jpg"), cv2.rotate(pixels, number % 3))
        learnt.append(Record(f"{number}", tmp_path / f"{number}.png"))
        rows.append(f"x{number}.jpg,nv")
    (tmp_path / "turned" / "data.csv").write_text("\n".join(rows))
    split = Split("med_node", 0, {"train": tuple("0123"), "val": (), "test": ()})
    prints = {"train": of_pictures(learnt[:4])[0]}
    bundle = with_list(Bundle.open(tiny_bundle), split, prints, tmp_path)
    (warning,) = select(load("csv", tmp_path / "turned"), bundle, "all").warnings
    assert warning.startswith("4 of 6 pictures")
    assert "(4 by their look)" in warning


def test_a_damaged_list_of_training_pictures_is_one_line(tiny_bundle, data, tmp_path):
    tiny = Bundle.open(tiny_bundle)
    parts = {name: tiny.part(name) for name in tiny.manifest.parts}
    path = write_bundle(tmp_path / "x.dermbundle", tiny.manifest, {**parts, FILE: b"nothing"})
    with pytest.raises(UserError, match=r"training\.npz .*is damaged"):
        select(load("csv", data), Bundle.open(path), "all")


def test_pictures_for_the_baselines_are_chosen_only_where_asked_for(tiny_bundle, data, tmp_path):
    data_set, bundle = load("csv", data), Bundle.open(tiny_bundle)
    ids = sorted(record.id for record in data_set.records)
    Split("csv", 0, {"train": ("gone", *ids[:20]), "val": (), "test": tuple(ids[20:])}).save(
        tmp_path / "split.json"
    )
    selection = select(data_set, bundle, "test", tmp_path / "split.json")
    assert (len(selection.records), selection.train) == (20, ())
    assert select(data_set, bundle, "test", baselines=True).train


def test_an_empty_part_is_refused_with_the_parts_that_have_pictures(tiny_bundle, data):
    data_set = load("csv", data)
    records = tuple(replace(record, official="train") for record in data_set.records)
    with pytest.raises(UserError, match=r"'test' of csv is empty; .*train \(\d+\).*all \(40\)"):
        select(replace(data_set, records=records), Bundle.open(tiny_bundle), "test")


def test_evaluate_says_in_one_line_that_nothing_can_be_measured(tiny_bundle, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), blob(60)[0])
    (tmp_path / "metadata.csv").write_text("image\na.png\n")
    words = ("--bundle", tiny_bundle, "--data", f"csv={tmp_path}", "--split", "all")
    assert call(EVALUATE, *words) == 1
    said = capsys.readouterr()
    assert said.err.startswith("dermedge: nothing to measure")
    assert (said.err.count("\n"), said.out) == (1, "")


def test_tables_say_that_a_bundle_knows_nothing_of_real_skin(tiny_bundle, data, bench, capsys):
    words = ("--bundle", tiny_bundle, "--data", f"csv={data}", "--split", "all", "--limit", 4)
    call(EVALUATE, *words)
    assert "trained on generated pictures: not for real skin" in capsys.readouterr().out
    assert "trained on generated pictures: not for real skin" in plain.bench(bench[1])


def test_differences_to_the_baselines_are_paired(tiny_bundle, data, tmp_path):
    data_set, bundle = load("csv", data), Bundle.open(tiny_bundle)
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
    found = figures.jaccard_difference(same)
    assert (found["value"], found["low"], found["high"]) == (0, 0, 0)
    assert "difference to the baseline (95 % interval)" in plain.evaluation(result)
    text = page.render("t", bundle, evaluation=result)
    assert "Difference to the baseline (95 % interval)" in text
    schema = json.loads(SCHEMA.read_text())
    own = schema["properties"]["evaluation"] | {"$defs": schema["$defs"]}
    Draft202012Validator(own).validate(result)


def test_a_limit_gives_the_same_pictures_whatever_the_order(tiny_bundle, data):
    data_set = load("csv", data)
    bundle = Bundle.open(tiny_bundle)
    selection = select(data_set, bundle, "all", limit=9)
    turned = replace(data_set, records=data_set.records[::-1])
    assert [r.id for r in select(turned, bundle, "all", limit=9).records] == [
        r.id for r in selection.records
    ]
    assert (len(selection.records), selection.pictures, selection.limit) == (9, 40, 9)


def test_pixels_are_counted_at_the_size_of_the_true_mask():
    _, mask = blob(60)
    larger = cv2.resize(mask.astype(np.uint8), (320, 240), interpolation=cv2.INTER_NEAREST) > 0
    tp, fp, fn, tn = evaluate.count_pixels(mask, larger)
    assert tp + fp + fn + tn == 320 * 240
    assert tp / (tp + fp + fn) > 0.95
    assert evaluate.count_pixels(mask, mask) == (mask.sum(), 0, 0, (~mask).sum())


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
    if option in ("--split", "--split-file", "--limit", "--baselines", "--tta", "--ood"):
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


# ------------------------------------------------------------- roles, metadata, unlike pictures


def rewritten(bundle: Bundle, folder: Path, name: str, graphs=(), **changes) -> Bundle:
    """The bundle with other values in its manifest, and other graphs."""
    parts = {part: bundle.part(part) for part in bundle.manifest.parts}
    parts |= dict(graphs)
    manifest = replace(bundle.manifest, name=name, **changes)
    used = {model.part for model in manifest.models.values()}
    kept = {part: value for part, value in parts.items() if not part.endswith(".onnx")}
    kept |= {part: parts[part] for part in used}
    return Bundle.open(write_bundle(folder / f"{name}.dermbundle", manifest, kept))


@pytest.fixture(scope="module")
def full_bundle(tiny_bundle, tmp_path_factory) -> Bundle:
    """The tiny bundle with a split, and a classifier that is told age and knows a distance.

    Old age speaks for melanoma. The distance is how far the mean colour is from gray, by 50.
    """
    import onnx
    from onnx import helper

    bundle = Bundle.open(tiny_bundle)
    labels = bundle.manifest.labels
    graph = onnx.load_from_string(bundle.model("classifier"))
    weights = np.zeros((5, len(labels)), np.float32)
    weights[4, labels.index("mel")] = 4
    softmax = next(node for node in graph.graph.node if node.op_type == "Softmax")
    softmax.input[0] = "informed"
    nodes = [
        helper.make_node("MatMul", ["metadata", "of_age"], ["told"]),
        helper.make_node("Add", ["logits", "told"], ["informed"]),
        helper.make_node("Abs", ["centred"], ["away"]),
        helper.make_node("ReduceMean", ["away"], ["mean_away"], axes=[1], keepdims=1),
        helper.make_node("Div", ["mean_away", "fifty"], ["distance"]),
    ]
    rest = [node for node in graph.graph.node if node is not softmax]
    del graph.graph.node[:]
    graph.graph.node.extend([*rest, *nodes, softmax])
    graph.graph.input.append(helper.make_tensor_value_info("metadata", 1, [1, 5]))
    graph.graph.output.append(helper.make_tensor_value_info("distance", 1, [1, 1]))
    graph.graph.initializer.extend(
        [
            helper.make_tensor("of_age", 1, weights.shape, weights.ravel()),
            helper.make_tensor("fifty", 1, [], [50.0]),
        ]
    )
    onnx.checker.check_model(graph)
    models = bundle.manifest.models
    classifier = replace(models["classifier"], metadata=("age",), macs=12_000_000, weights="half")
    training = {
        "data_set": "csv",
        "licence": "CC0 1.0",
        "split_sha256": "ab" * 32,
        "pictures": {"train": 24, "val": 8},
        "seed": 3,
        "steps": 70,
        "imagenet_weights": True,
    }
    return rewritten(
        bundle,
        tmp_path_factory.mktemp("full"),
        "full",
        {"classifier.onnx": graph.SerializeToString()},
        models={**models, "classifier": classifier},
        thresholds=replace(bundle.manifest.thresholds, unfamiliar=1.0),
        training_data=tuple({"role": role, **training} for role in models),
        licence="CC0 | 1.0",
        procedural=False,
    )


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """Twenty-four whole pictures with masks; all nevi are of the young, melanoma of the old."""
    root = tmp_path_factory.mktemp("people")
    lines = ["image,mask,diagnosis,lesion_id,age,skin_type"]
    for number in range(24):
        label = ("mel", "nv", "bcc")[number % 3]
        image, mask = blob({"mel": 60, "nv": 61, "bcc": 62}[label], 24 + number % 5)
        cv2.imwrite(str(root / f"p{number:02}.png"), image[..., ::-1])
        cv2.imwrite(str(root / f"p{number:02}_mask.png"), mask.astype(np.uint8) * 255)
        age = {"mel": 80, "nv": 20, "bcc": 40}[label]
        lines.append(
            f"p{number:02}.png,p{number:02}_mask.png,{label},l{number},{age},{number % 2 * 4 + 1}"
        )
    (root / "data.csv").write_text("\n".join(lines) + "\n")
    return root


def evaluated(bundle: Bundle, data: Path, **options) -> dict:
    data_set = load("csv", data)
    selection = select(data_set, bundle, "all", baselines=False)
    return evaluate.evaluate(bundle, data_set, selection, Options(threads=2, **options))[0]


def network_metrics(result: dict) -> dict:
    return {
        name: value
        for method in result["methods"]
        if method["name"] == names.NETWORKS
        for name, value in method["metrics"].items()
    }


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
    result = evaluated(full_bundle, people, ood=tmp_path)
    found = result["ood"]
    assert (found["pictures"], found["unreadable"]) == (3, 1)
    assert found["flagged"]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["kinds"]["white"]["auc"]["value"] == 1
    assert found["kinds"]["gray"]["auc"]["value"] == 0
    assert found["kinds"]["gray"]["pictures"] == 1
    assert "which show no lesion" in plain.evaluation(result)
    assert "that show no lesion" in page.render("t", full_bundle, evaluation=result)


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
    for out in ("one", "two"):
        words = ["--data", f"csv={people}", "--out", str(tmp_path / out), "--count", "3"]
        out_of_distribution.main(words)
    written = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.png")}
    assert {path.parent.name for path in written} >= {"surface", "document", "photograph"}
    for path in written:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    with pytest.raises(UserError, match="not empty"):
        out_of_distribution.main(words)


# ------------------------------------------------------------- tables of results, cards, curves


def test_table_of_results_replaces_the_same_measurement_and_keeps_the_others(
    full_bundle, people, tmp_path, capsys
):
    file = tmp_path / "results" / "test.csv"
    words = ["--bundle", full_bundle.path, "--data", f"csv={people}", "--split", "all"]
    assert call(EVALUATE, *words, "--table", file) == 0
    first = file.read_text()
    assert call(EVALUATE, *words, "--table", file) == 0
    rows = tables.read(file)
    assert len(rows) == 1
    assert len(file.read_text()) == len(first)
    call(EVALUATE, *words, "--table", file, "--no-metadata")
    call(EVALUATE, *words, "--table", file, "--tta")
    ways = [(row["tta"], row["metadata"]) for row in tables.read(file)]
    assert ways == [("1", "age"), ("1", "withheld"), ("4", "age")]
    (row,) = rows
    assert float(row["jaccard_low"]) <= float(row["jaccard"]) <= float(row["jaccard_high"])
    assert (row["classifier_macs"], row["classifier_precision"]) == ("12000000", "fp32+half")
    assert (row["segmenter_seed"], row["segmenter_pictures"]) == ("3", "24")
    assert (row["classifier_pretrained"], row["outlines"]) == ("True", "24")
    groups = tables.read(tables.groups_of(file), tables.GROUP_COLUMNS)
    assert {"class mel", "class nv", "skin type I-II", "skin type V-VI"} <= {
        row["group"] for row in groups
    }
    assert len(groups) == 3 * len([row for row in groups if row["tta"] + row["metadata"] == "1age"])


@pytest.mark.parametrize("content", ["words", "bundle,colour\nx,red\n", "\xff", ""])
def test_a_file_that_is_no_table_of_results_is_refused_before_the_work(
    content, full_bundle, people, tmp_path, monkeypatch
):
    (tmp_path / "x.csv").write_bytes(content.encode("latin-1"))
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: pytest.fail("it was measured"))
    words = ["--bundle", full_bundle.path, "--data", f"csv={people}", "--split", "all"]
    with pytest.raises(UserError, match="no table of results"):
        call(EVALUATE, *words, "--table", tmp_path / "x.csv")
    with pytest.raises(UserError, match=r"a \.csv file"):
        call(EVALUATE, *words, "--table", tmp_path / "x.json")
    assert (tmp_path / "x.csv").read_bytes() == content.encode("latin-1")


def test_every_column_is_described_and_tells_what_it_is():
    text = (Path(tables.__file__).parents[1] / "results" / "README.md").read_text()
    for column in (*tables.KEY, *tables.MEASURES, *tables.GROUP_COLUMNS):
        assert f"`{column}`" in text
    assert len(set(tables.COLUMNS)) == len(list(tables.COLUMNS))


def test_commands_tell_nothing_of_where_pictures_are_kept(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", "--data", "csv=/home/me/secret/HAM", "--bundle", "models/a.dermbundle"]
    inside, outside = str(tmp_path / "x.json"), "../shared/split.json"
    monkeypatch.setattr("sys.argv", ["dermedge", *words, inside, outside, "--split", "test"])
    assert arguments.command() == (
        "dermedge evaluate --data csv=HAM --bundle models/a.dermbundle x.json split.json "
        "--split test"
    )


def test_commit_is_of_our_own_checkout_only(tmp_path):
    assert re.fullmatch(r"-|[0-9a-f]{12,}", provenance.commit())
    for folder, own in ((tmp_path / "own", True), (tmp_path / "foreign" / "site", False)):
        copy = folder / "dermedge" / "evaluation" / "provenance.py"
        copy.parent.mkdir(parents=True)
        shutil.copy(provenance.__file__, copy)
        spec = importlib.util.spec_from_file_location("provenance_copy", copy)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.commit() == "-"  # no checkout at all
        root = folder if own else folder.parent
        git = ["git", "-C", root, "-c", "user.name=n", "-c", "user.email=n@example.org"]
        for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
            subprocess.run([*git, *words], check=True)
        assert re.fullmatch(r"[0-9a-f]{12,}" if own else "-", module.commit("+"))
        copy.write_text("# changed")
        assert module.commit("+").endswith("+" if own else "-")
        assert "+" not in module.commit()


def test_cards_and_list_are_made_of_the_tables(full_bundle, people, tmp_path, monkeypatch, capsys):
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "full.dermbundle"
    path.write_bytes(full_bundle.path.read_bytes())
    (tmp_path / "models" / "full.notes.md").write_text("For tests.\n\n- Takes a | for a line.\n")
    words = ["--bundle", path, "--data", f"csv={people}", "--split", "all"]
    for more in ((), ("--no-metadata",), ("--tta",)):
        call(EVALUATE, *words, "--table", tmp_path / "results" / "test.csv", *more)
    cards.main(
        [str(path), "--results", str(tmp_path / "results"), "--out", str(tmp_path / "MODELS.md")]
    )
    card = (tmp_path / "models" / "full.md").read_text()
    models = (tmp_path / "MODELS.md").read_text()
    (plain, *_) = tables.read(tmp_path / "results" / "test.csv")
    shown = f"{float(plain['jaccard']):.3f} ({float(plain['jaccard_low']):.3f} to "
    assert f"Jaccard {shown}" in models
    assert f"| Jaccard | {shown}" in card
    ways = ["with age", "picture alone", "with age, mean of 4 views"]
    assert " | ".join(f"Networks, {way}" for way in ways) in card
    for text in (card, models):
        assert DISCLAIMER in text
        assert "CC0 \\| 1.0" in text
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert (tmp_path / target).exists() or (tmp_path / "models" / target).exists()
        found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
        for table in found:
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "mel: melanoma" in card
    assert "V-VI" in card
    assert "Takes a | for a line." in card


def test_a_bundle_without_figures_gets_a_card_that_says_so(tiny_bundle, tmp_path):
    path = tmp_path / "tiny.dermbundle"
    path.write_bytes(Path(tiny_bundle).read_bytes())
    (tmp_path / "results").mkdir()
    out = tmp_path / "MODELS.md"
    cards.main([str(path), "--results", str(tmp_path / "results"), "--out", str(out)])
    assert "not measured" in out.read_text()
    card = (tmp_path / "tiny.md").read_text()
    assert "None was taken of this file yet." in card
    assert "not for real skin" in card
    with pytest.raises(UserError, match="no folder"):
        cards.main([str(path), "--results", str(tmp_path / "gone"), "--out", str(out)])


def test_curves_are_against_epochs_and_average_the_losses(tmp_path):
    run = tmp_path / "edge"
    run.mkdir()
    lines = ["step,epoch,lr,bce,l1,val_jaccard"]
    lines += [
        f"{10 * n},{n // 8},0.1,{1 / n},,{0.1 * n if n % 8 == 0 else ''}" for n in range(1, 17)
    ]
    (run / "log.csv").write_text("\n".join(lines) + "\n")
    found = curves.curves(run)
    assert set(found) == {"bce", "val_jaccard"}
    assert found["val_jaccard"][0].tolist() == [1, 2]
    epochs, losses = found["bce"]
    assert len(epochs) == 8
    assert losses[0] == pytest.approx((1 + 1 / 2) / 2)
    picture = curves.plot([("one", found), ("two", {"val_jaccard": found["val_jaccard"]})])
    shape = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape
    assert shape[1] > shape[0] > 200
    curves.main([str(run), "--out", str(tmp_path / "curves.png")])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_a_whole_epoch_has_no_curves(tmp_path):
    (tmp_path / "log.csv").write_text("step,epoch,lr,bce,val_jaccard\n10,0,0.1,0.5,\n")
    with pytest.raises(UserError, match="no epoch has ended"):
        curves.curves(tmp_path)
    with pytest.raises(UserError, match="missing"):
        curves.curves(tmp_path / "gone")


def test_every_precision_and_runtime_beside_the_first(tiny_bundle, data, tmp_path, capsys):
    from benchmarks.accuracy import executions

    path = tmp_path / "executions.csv"
    words = ("--bundle", tiny_bundle, "--data", f"csv={data}", "--split", "all")
    assert call(EVALUATE, *words, "--executions", path, "--threads", 1) == 0
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert list(rows[0]) == list(executions.COLUMNS)
    first = [row for row in rows if row["execution"] == "fp32 cpu"]
    assert {row["measure"] for row in first} >= {"malignant_auc", "same_advice"}
    assert all(float(row["difference"]) == 0 for row in first if row["difference"])
    others = {row["execution"] for row in rows} - {"fp32 cpu"}
    assert others  # OpenVINO is among what the tests install
    for row in rows:
        if row["measure"] == "same_advice":
            assert float(row["value"]) == 1  # the same graph
    assert "fp32 cpu" in capsys.readouterr().out


def test_executions_are_held_against_fp32_where_the_bundle_carries_it(tiny_bundle, tmp_path):
    from benchmarks.accuracy import executions

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
    rows = executions.measure(Bundle.open(path), None, 1)
    assert [row["execution"] for row in rows] == list(found)


def test_a_tuned_run_is_as_right_as_the_graph_that_is_timed(
    tiny_bundle, data, tmp_path, monkeypatch
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
    road = ExecutionConfig("int8", "cpu", 1)
    monkeypatch.setattr("dermedge.tune.load_tuned", lambda _: {"classifier": road})
    words = ["--bundle", path, "--data", f"csv={data}", "--split", "all", "--runs", 2]
    found = {}
    for name, more in {"plain": [], "tuned": ["--tuned"]}.items():
        assert call(BENCH, *words, *more, "--threads", 1, "--out", tmp_path / name) == 0
        found[name] = json.loads((tmp_path / name / "bench.json").read_text())
    auc = {
        name: next(m for m in result["evaluation"]["methods"] if m["task"] == "classification")
        for name, result in found.items()
    }
    auc = {name: method["metrics"]["malignant_auc"]["value"] for name, method in auc.items()}
    assert auc["tuned"] == pytest.approx(1 - auc["plain"])
    assert auc["plain"] != 0.5
    told = {m["role"]: m["precision"] for m in found["tuned"]["bundle"]["models"]}
    assert told == {"segmenter": "fp32", "classifier": "int8"}
    assert found["tuned"]["evaluation"]["executions"] == {"classifier": "int8 cpu 1 thread"}
    with pytest.raises(UserError, match="give one"):
        call(BENCH, *words, "--tuned", "--executions", "--out", tmp_path)


def test_worst_errors_are_the_worst(data, tmp_path):
    record = load("csv", data).records[0]
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


def test_one_page_with_accuracy_every_execution_and_the_worst_errors(
    tiny_bundle, data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(cold_start, "cold_start", lambda *_: [])
    monkeypatch.setattr(cold_start, "networks_bytes", lambda *_: 1)
    monkeypatch.setattr(bench_module, "QUICK_SECONDS", 0.01)
    robust = tmp_path / "robust"
    words = ["--bundle", str(tiny_bundle), "--data", f"csv={data}", "--split", "all"]
    assert cli.main(["robustness", *words, "--changes", "blur", "--out", str(robust)]) == 1
    words += ["--executions", "--vs", tiny_bundle, "--robustness", robust / "robustness.json"]
    assert call(BENCH, *words, "--threads", 1, "--out", tmp_path) == 0
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
        assert words in page.render("t", Bundle.open(tiny_bundle), bench=result)


def test_an_outline_on_the_page_is_unsure_but_not_missing(tiny_bundle, data, monkeypatch):
    monkeypatch.setitem(quality.LIMITS, "no_lesion", quality.Limit(0, 1e-6, 1))
    image = load("csv", data).records[0].image
    bundle = Bundle.open(tiny_bundle)
    gallery = examples.analysed(bundle, [(Path(image), "", None)])
    text = page.render("t", bundle, gallery=gallery)
    assert 'class="outline over" d="M' in text
    assert "The outline is unsure" in text
    assert "No lesion was found" not in text


def test_throughput_of_an_evaluation(tiny_bundle, data):
    from benchmarks.accuracy import evaluation_throughput

    found = evaluation_throughput.measure(
        Bundle.open(tiny_bundle), f"csv={data}", "all", None, "command"
    )
    assert found["pictures"] == 38
    assert found["share_of_possible"] > 0
    assert found["evaluate_per_second"] < found["read_per_second"]


def test_a_table_that_a_spreadsheet_saved_is_read_or_refused_with_what_to_do(tmp_path):
    path = tmp_path / "table.csv"
    text = ",".join(tables.KEY) + "\n" + ",".join("x" for _ in tables.KEY) + "\n"
    path.write_bytes(text.encode("utf-8-sig"))
    assert [row["bundle"] for row in tables.read(path)] == ["x"]
    for encoding in ("utf-16", "latin-1"):
        path.write_bytes(text.replace("x", "é").encode(encoding))
        with pytest.raises(UserError, match="save it as UTF-8"):
            tables.read(path)


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


def test_an_evaluation_of_version_0_1_0_is_read(bench, tiny_bundle, tmp_path):
    new = bench[1]["evaluation"]
    old = {key: value for key, value in new.items() if key not in ("executions", "ood")}
    old["schema"], old["roads"], old["unlike"] = names.OLD_EVALUATION, {}, None
    old["unfamiliar"] = old.pop("ood_flagged")
    old["metadata"] = {"taken": new["metadata"]["accepted"], "given": new["metadata"]["used"]}
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert stored.evaluation(tmp_path / "old.json", Bundle.open(tiny_bundle)) == new
