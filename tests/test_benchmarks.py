from __future__ import annotations

import argparse
import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from jsonschema import Draft202012Validator

from benchmarks import accuracy, baselines, latency, report
from benchmarks.commands import BENCH, EVALUATE
from dermedge import DISCLAIMER, UserError, quality
from dermedge.bundle import Bundle, write_bundle
from dermedge.datasets import Split, load, make_split

SCHEMA = Path(report.__file__).parent / "bench.schema.json"
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


def call(command, *words) -> int:
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


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
    found = methods["segmentation", accuracy.NETWORKS]["metrics"]
    assert found["jaccard"]["value"] > 0.9
    assert found["jaccard"]["low"] <= found["jaccard"]["value"] <= found["jaccard"]["high"]
    assert methods["segmentation", baselines.OTSU]["count"] == 38
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
    chosen = accuracy.Chosen("all", records, len(records), None, "none", None, ())
    result, _ = accuracy.evaluate(bundle, data_set, chosen, False, 1, "")
    method = next(m for m in result["methods"] if m["task"] == "classification")
    assert result["data"]["outside_labels"] == 10
    assert method["count"] == 38
    assert method["labelled"] == 28
    assert sum(map(sum, method["confusion"])) == 28


def test_warns_where_pictures_or_their_lesions_were_trained_on(tiny_bundle, data, tmp_path):
    data_set = load("csv", data)
    bundle = Bundle.open(with_split(tiny_bundle, make_split(data_set), tmp_path))
    assert accuracy.choose(data_set, bundle, "test").warnings == ()
    assert "were in the training part" in accuracy.choose(data_set, bundle, "train").warnings[0]
    ids = sorted(record.id for record in data_set.records)
    # One picture of each lesion trained on, the other one measured.
    leaky = Split("csv", 0, {"train": tuple(ids[::2]), "val": (), "test": tuple(ids[1::2])})
    bundle = Bundle.open(with_split(tiny_bundle, leaky, tmp_path))
    assert accuracy.choose(data_set, bundle, "test").warnings[0].startswith("20 of 20 pictures")
    unknown = accuracy.choose(data_set, Bundle.open(tiny_bundle), "test").warnings
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
    chosen = accuracy.choose(data_set, Bundle.open(both), "test")
    assert [record.id for record in chosen.records] == ids[20:]
    assert len(chosen.warnings) == 1
    assert chosen.warnings[0].startswith("the segmenter was trained on isic2017")


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
    chosen = accuracy.choose(other, bundle, "test")
    assert chosen.source == f"made here with seed {accuracy.SEED}"
    assert "30 pictures of its split are not here" in chosen.warnings[0]
    assert "new split" in chosen.warnings[1]
    grown = replace(data_set, records=(*data_set.records, records[-1]))
    assert "nothing of 1 pictures" in accuracy.choose(grown, bundle, "test").warnings[0]
    whole = accuracy.choose(other, bundle, "all", baselines=True)
    assert len(whole.records) == 40
    assert len(whole.warnings) == 1
    assert "of 40 pictures have the id" in whole.warnings[0]
    assert whole.train == ()


def test_pictures_for_the_baselines_are_chosen_only_where_asked_for(tiny_bundle, data, tmp_path):
    data_set, bundle = load("csv", data), Bundle.open(tiny_bundle)
    ids = sorted(record.id for record in data_set.records)
    Split("csv", 0, {"train": ("gone", *ids[:20]), "val": (), "test": tuple(ids[20:])}).save(
        tmp_path / "split.json"
    )
    chosen = accuracy.choose(data_set, bundle, "test", tmp_path / "split.json")
    assert (len(chosen.records), chosen.train) == (20, ())
    assert accuracy.choose(data_set, bundle, "test", baselines=True).train


def test_an_empty_part_is_refused_with_the_parts_that_have_pictures(tiny_bundle, data):
    data_set = load("csv", data)
    records = tuple(replace(record, official="train") for record in data_set.records)
    with pytest.raises(UserError, match=r"'test' of csv is empty; .*train \(\d+\).*all \(40\)"):
        accuracy.choose(replace(data_set, records=records), Bundle.open(tiny_bundle), "test")


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
    assert "trained on generated pictures: not for real skin" in latency.table(bench[1])


def test_differences_to_the_baselines_are_paired(tiny_bundle, data, tmp_path):
    data_set, bundle = load("csv", data), Bundle.open(tiny_bundle)
    ids = sorted(record.id for record in data_set.records)
    Split("csv", 0, {"train": tuple(ids[:20]), "val": (), "test": tuple(ids[20:])}).save(
        tmp_path / "split.json"
    )
    chosen = accuracy.choose(data_set, bundle, "test", tmp_path / "split.json", baselines=True)
    result, rows = accuracy.evaluate(bundle, data_set, chosen, True, 1, "")
    values = {
        (method["name"], name): metric["value"]
        for method in result["methods"]
        for name, metric in method["metrics"].items()
    }
    assert [entry["metric"] for entry in result["differences"]] == ["jaccard", "malignant_auc"]
    for entry in result["differences"]:
        ours, simple = (
            values[name, entry["metric"]] for name in (accuracy.NETWORKS, entry["baseline"])
        )
        assert entry["value"] == pytest.approx(ours - simple, abs=2e-6)
        assert entry["low"] <= entry["value"] <= entry["high"]
    # The same masks from both methods differ by nothing in every resample.
    same = [
        replace(row, counts={**row.counts, accuracy.OTSU: row.counts[accuracy.NETWORKS]})
        for row in rows
    ]
    found = accuracy._jaccard_difference(same, {name: n for n, name in enumerate(ids)})
    assert (found["value"], found["low"], found["high"]) == (0, 0, 0)
    assert "difference to the baseline (95 % interval)" in accuracy.table(result)
    page = report.render("t", bundle, evaluation=result)
    assert "Difference to the baseline (95 % interval)" in page
    schema = json.loads(SCHEMA.read_text())["properties"]["evaluation"]
    Draft202012Validator(schema).validate(result)


def test_a_limit_gives_the_same_pictures_whatever_the_order(tiny_bundle, data):
    data_set = load("csv", data)
    bundle = Bundle.open(tiny_bundle)
    chosen = accuracy.choose(data_set, bundle, "all", limit=9)
    turned = replace(data_set, records=data_set.records[::-1])
    assert [r.id for r in accuracy.choose(turned, bundle, "all", limit=9).records] == [
        r.id for r in chosen.records
    ]
    assert (len(chosen.records), chosen.pictures, chosen.limit) == (9, 40, 9)


def test_pixels_are_counted_at_the_size_of_the_true_mask():
    _, mask = blob(60)
    larger = cv2.resize(mask.astype(np.uint8), (320, 240), interpolation=cv2.INTER_NEAREST) > 0
    tp, fp, fn, tn = accuracy._count(mask, larger)
    assert tp + fp + fn + tn == 320 * 240
    assert tp / (tp + fp + fn) > 0.95
    assert accuracy._count(mask, mask) == (mask.sum(), 0, 0, (~mask).sum())


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
    page = (out / "bench.html").read_text()
    assert DISCLAIMER in page
    assert "Trained on procedural pictures" in page
    assert "A &lt;title&gt;" in page
    assert "Not analysed" in page
    assert 'class="outline over" d="M' in page
    assert not re.search(r'(src|href)="(?!data:|#)', page.replace("xlink:href", "href"))
    assert "url(http" not in page
    assert page.count('role="img"') == page.count("aria-label=")
    assert "#010203" not in page


def test_bench_refuses_figures_of_another_bundle(tiny_bundle, tmp_path):
    old = {"schema": accuracy.SCHEMA, "bundle": {"sha256": "0" * 64}}
    (tmp_path / "old.json").write_text(json.dumps(old))
    words = ("--bundle", tiny_bundle, "--runs", 1, "--out", tmp_path)
    with pytest.raises(UserError, match="another bundle"):
        call(BENCH, *words, "--evaluation", tmp_path / "old.json")
    for part in ({}, {"bundle": {"sha256": Bundle.open(tiny_bundle).sha256}}, {"bundle": []}):
        (tmp_path / "old.json").write_text(json.dumps({"schema": accuracy.SCHEMA, **part}))
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
    ],
)
def test_bench_refuses_before_it_times(option, value, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("a-file").touch()
    monkeypatch.setattr(latency, "benchmark", lambda *_, **__: pytest.fail("it was timed"))
    given = [option] if value is None else [option, value]
    out = () if option == "--out" else ("--out", "out")
    with pytest.raises((UserError, OSError)) as caught:
        call(BENCH, "--bundle", tiny_bundle, *out, *given)
    assert "\n" not in str(caught.value)
    if option in ("--split", "--split-file", "--limit", "--baselines"):
        assert str(caught.value) == f"{option} needs --data"


def test_bench_keeps_what_it_timed_where_the_page_fails(tiny_bundle, bench, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise UserError("no page")

    monkeypatch.setattr(latency, "benchmark", lambda *_, **__: dict(bench[1]))
    monkeypatch.setattr(report, "render", fail)
    with pytest.raises(UserError, match="no page"):
        call(BENCH, "--bundle", tiny_bundle, "--out", tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text()) == bench[1]
    assert (tmp_path / "bench.csv").read_text() == (bench[0] / "bench.csv").read_text()


def test_a_picture_that_cannot_be_judged_gets_no_figures_on_the_page(tiny_bundle, tmp_path):
    cv2.imwrite(str(tmp_path / "dark.png"), np.full((120, 160, 3), 12, np.uint8))
    page = report.render("t", Bundle.open(tiny_bundle), images=[tmp_path / "dark.png"])
    card = page[page.index('<figure class="card retake">') :].split("</figure>")[0]
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
    frame = latency.pictures([])[latency.FRAME]
    rows = latency.measure(Bundle.open(tiny_bundle), {"frame": frame}, [1, 2], None, 3)
    assert {(row["threads"], row["runs"]) for row in rows} == {(1, 3), (2, 3)}
    assert {row["stage"] for row in rows} == set(latency.STAGES)
    assert cv2.getNumThreads() == before


def test_otsu_on_real_dermoscopy(shared_data):
    root = shared_data / "HAM10000"
    if not root.is_dir():
        pytest.skip(f"HAM10000 is not in {shared_data}")
    from dermedge.image import read_image, read_mask

    records = [record for record in load("ham10000", root).records[:400:20] if record.mask]
    scores = []
    for record in records:
        truth = read_mask(record.mask)
        tp, fp, fn, _ = accuracy._count(baselines.otsu_mask(read_image(record.image).pixels), truth)
        scores.append(tp / (tp + fp + fn))
    assert np.mean(scores) > 0.55
