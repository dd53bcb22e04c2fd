"""Tables of results, the models' cards that are made of them, and curves of training."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest
from commands import call

from benchmarks.accuracy import evaluate
from benchmarks.commands.evaluate import EVALUATE
from benchmarks.report import cards, curves, page
from benchmarks.schema import tables
from dermedge import DISCLAIMER, UserError
from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.bundle.manifest import Variant
from dermedge.runtime import host

pytestmark = pytest.mark.usefixtures("few_resamples")


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
    for table in (file, tables.groups_of(file)):  # as version 0.2.0 wrote it
        table.write_text(table.read_text().replace(f",{rows[0]['split_sha256']},", ",,"))
    assert call(EVALUATE, *words, "--table", file) == 0
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


def test_another_precision_is_another_measurement(tiny_bundle, people, tmp_path):
    tiny = Bundle.open(tiny_bundle)
    parts = {name: tiny.part(name) for name in tiny.manifest.parts}
    models = dict(tiny.manifest.models)
    for role in ("segmenter", "classifier"):
        variant = Variant(f"{role}-int8.onnx", "int8", (host(),))
        parts[variant.part] = parts[models[role].part]
        models[role] = replace(models[role], variants=(variant,))
    path = write_bundle(tmp_path / "b.dermbundle", replace(tiny.manifest, models=models), parts)
    file = tmp_path / "results" / "test.csv"
    data = shutil.copytree(people, tmp_path / "data")
    with (data / "data.csv").open("a") as rows:
        rows.write("gone.png,,mel,l99,80,1\n")
    words = ["--bundle", path, "--data", f"csv={data}", "--split", "all", "--table", file]
    for more in ([], ["--precision", "int8"], ["--precision", "fp32"]):
        call(EVALUATE, *words, *more)
    rows = [(row["precision"], row["segmenter_precision"]) for row in tables.read(file)]
    assert rows == [("", "fp32"), ("int8", "int8")]
    (section,) = cards.describe(Bundle.open(path), *cards.read_results(file.parent))["measured"]
    assert section["figures"][0] == ["Measure", "Networks", "Networks, in int8"]
    # It was two warnings on the card, the second without a beginning.
    (missing,) = [text for text in section["warnings"] if "data check" in text]
    assert missing.startswith("1 rows or files of csv are missing or malformed")


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
    (tmp_path / "y-groups.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"y-groups\.csv is no table of results"):
        call(EVALUATE, *words, "--table", tmp_path / "y.csv")
    assert not (tmp_path / "y.csv").exists()
    # The cards took it for groups, and said that nothing was measured.
    with pytest.raises(UserError, match="give another name"):
        call(EVALUATE, *words, "--table", tmp_path / "age-groups.csv")


@pytest.mark.parametrize("columns", [tables.COLUMNS, tables.GROUP_COLUMNS])
def test_a_figure_that_a_spreadsheet_changed_is_refused(columns, tmp_path):
    """A decimal comma ended the making of cards in a traceback."""
    path, figure = tmp_path / "t.csv", "jaccard_low" if columns is tables.COLUMNS else "low"
    cells = dict.fromkeys(columns, "") | {figure: '"0,89"'}
    path.write_text(f"{','.join(cells)}\n{','.join(cells.values())}\n")
    with pytest.raises(UserError, match=f"{figure} is '0,89', no number"):
        tables.read(path, columns)
    path.write_text(path.read_text().replace(",89", ".89"))
    assert tables.read(path, columns)[0][figure] == "0.89"


def test_every_column_is_described_and_tells_what_it_is():
    text = (Path(tables.__file__).parents[1] / "results" / "README.md").read_text()
    for column in (*tables.KEY, *tables.MEASURES, *tables.GROUP_COLUMNS):
        assert f"`{column}`" in text
    assert len(set(tables.COLUMNS)) == len(list(tables.COLUMNS))


def test_cards_and_list_are_made_of_the_tables(full_bundle, people, tmp_path, monkeypatch, capsys):
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "full.dermbundle"
    path.write_bytes(full_bundle.path.read_bytes())
    (tmp_path / "models" / "full.notes.md").write_text("For tests.\n\n- Takes a | for a line.\n")
    words = ["--bundle", path, "--data", f"csv={people}", "--split", "all"]
    for more in ((), ("--no-metadata",), ("--tta",)):
        call(EVALUATE, *words, "--table", tmp_path / "results" / "test.csv", *more)
    (tmp_path / "results" / "splits").mkdir()
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
    assert "The splits are in `results/splits`." in models


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"imagenet_weights": True, "start": "", "teachers": []}, "ImageNet weights"),
        ({"imagenet_weights": False, "start": ""}, "random weights"),
        ({"imagenet_weights": False, "start": "dermoscopy@5630"}, "dermoscopy@5630"),
        ({"start": "a", "teachers": ["b", "c.dermbundle"]}, "a; teachers: b, c.dermbundle"),
        ({"imagenet_weights": True}, "ImageNet weights"),
        ({"imagenet_weights": False}, "not stated"),
    ],
)
def test_a_card_and_a_report_say_what_a_network_started_and_learnt_from(entry, said, full_bundle):
    """'Started from ImageNet: no' hid that it knew another data set by its start."""
    assert cards.started_from(entry) == said
    manifest = replace(full_bundle.manifest, training_data=({"role": "classifier", **entry},))
    bundle = replace(full_bundle, manifest=manifest)
    assert said in page.render("t", bundle)
    assert [one["start"] for one in cards.describe(bundle, [], [])["training"]] == [said]


def test_a_bundle_without_figures_gets_a_card_that_says_so(tiny_bundle, tmp_path):
    path = tmp_path / "tiny.dermbundle"
    path.write_bytes(Path(tiny_bundle).read_bytes())
    (tmp_path / "results").mkdir()
    out = tmp_path / "MODELS.md"
    cards.main([str(path), "--results", str(tmp_path / "results"), "--out", str(out)])
    assert "not measured" in out.read_text()
    assert "splits" not in out.read_text()
    card = (tmp_path / "tiny.md").read_text()
    assert "None was taken of this file yet." in card
    assert "not for real skin" in card
    with pytest.raises(UserError, match="no folder"):
        cards.main([str(path), "--results", str(tmp_path / "gone"), "--out", str(out)])


def test_links_to_a_bundle_whose_name_has_spaces_can_be_followed(tiny_bundle, tmp_path):
    """Markdown ends a link at a space: none was there."""
    path = tmp_path / "our models" / "new (1).dermbundle"
    path.parent.mkdir()
    path.write_bytes(Path(tiny_bundle).read_bytes())
    out = tmp_path / "MODELS.md"
    cards.main([str(path), "--results", str(tmp_path), "--out", str(out)])
    for written in (out, path.with_suffix(".md")):
        links = re.findall(r"\]\(([^) ]+)\)", written.read_text())
        assert links
        assert all((written.parent / unquote(link)).exists() for link in links)


def test_curves_are_against_epochs_and_average_the_losses(tmp_path):
    run = tmp_path / "edge"
    run.mkdir()
    lines = ["step,epoch,lr,bce,l1,val_jaccard"]
    lines += [
        f"{10 * n},{(n - 1) // 8},0.1,{1 / n},,{0.1 * n if n % 8 == 0 else ''}"
        for n in range(1, 17)
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


def test_a_run_that_is_validated_now_and_then_has_as_many_epochs(tmp_path):
    lines = ["step,epoch,lr,bce,val_auc"]
    lines += [f"{step},{(step - 1) // 20},0.1,0.5," for step in range(10, 121, 10)]
    for step in (60, 120):  # each third of six epochs of twenty steps
        lines[step // 10] += "0.9"
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    assert curves.curves(tmp_path)["val_auc"][0].tolist() == [3, 6]


def test_a_run_without_a_whole_epoch_has_no_curves(tmp_path):
    (tmp_path / "log.csv").write_text("step,epoch,lr,bce,val_jaccard\n10,0,0.1,0.5,\n")
    with pytest.raises(UserError, match="no epoch has ended"):
        curves.curves(tmp_path)
    with pytest.raises(UserError, match="missing"):
        curves.curves(tmp_path / "gone")


def test_a_table_of_version_0_1_0_is_read(tmp_path):
    path = tmp_path / "table.csv"
    head, cells = ",".join(tables.KEY), ",".join("x" for _ in tables.KEY)
    path.write_text(f"{head},unfamiliar_low,unlike_auc\n{cells},0.1,0.9\n")
    (row,) = tables.read(path)
    assert (row["marked_ood_low"], row["ood_auc"]) == ("0.1", "0.9")
    path.write_text(f"{head},group,measure\n{cells},unlike skin,auc\n")
    (row,) = tables.read(path, tables.GROUP_COLUMNS)
    assert row["group"] == "ood skin"


def test_a_table_that_a_spreadsheet_saved_is_read_or_refused_with_what_to_do(tmp_path):
    path = tmp_path / "table.csv"
    text = ",".join(tables.KEY) + "\n" + ",".join("x" for _ in tables.KEY) + "\n"
    path.write_bytes(text.encode("utf-8-sig"))
    assert [row["bundle"] for row in tables.read(path)] == ["x"]
    for encoding in ("utf-16", "latin-1"):
        path.write_bytes(text.replace("x", "é").encode(encoding))
        with pytest.raises(UserError, match="save it as UTF-8"):
            tables.read(path)
