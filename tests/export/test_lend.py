"""`export --with`: a finished bundle's network for the role that no run plays."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import SHORT

from benchmarks.report.cards import describe
from dermedge import cli
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle, shipped, write_bundle
from dermedge.bundle.manifest import OUTLIERS
from dermedge.data import Split
from dermedge.data.leak import FILE, LEARNT, VAL, TrainingPictures
from dermedge.image.preprocess import Preprocessing
from dermedge.image.read import Picture
from export import pipeline


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def export(run, out, *options) -> int:
    return cli.main(["export", str(run), "--out", str(out), *map(str, options)])


def refused(capsys, *words) -> str:
    assert export(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_classifier_gets_the_segmenter_of_a_shipped_bundle(export_runs, tmp_path, capsys):
    out = tmp_path / "whole.dermbundle"
    assert export(export_runs / "classifier", out, "--with", "dermoscopy", "--similar", "1") == 0
    printed = capsys.readouterr().err
    lender, made = Bundle.open(shipped()["dermoscopy"]), Bundle.open(out)
    assert "the segmenter is the one of the bundle dermoscopy" in printed
    assert f"licence {lender.manifest.licence}, trained on ham10000" in printed
    assert "for evaluation only" not in printed
    # A head for outliers was fitted to both networks of its bundle.
    assert "what tells pictures without a lesion in" in printed
    assert OUTLIERS not in made.manifest.parts
    theirs, own = lender.manifest, made.manifest
    assert own.models["segmenter"] == theirs.models["segmenter"]
    assert made.model("segmenter") == lender.model("segmenter")
    assert own.models["classifier"].architecture == SHORT[0]
    assert own.thresholds.mask == theirs.thresholds.mask
    assert own.thresholds.see_doctor != theirs.thresholds.see_doctor
    for name in ("measured", "parity"):
        assert getattr(own, name)["segmenter"] == getattr(theirs, name)["segmenter"]
    assert [r for r in own.gate if r["roles"] == ["segmenter"]] == [
        r for r in theirs.gate if r["roles"] == ["segmenter"]
    ]
    # Where each network comes from, and under which licence the whole is.
    origins = {entry["role"]: entry.get("from_bundle") for entry in own.training_data}
    assert origins["classifier"] is None
    assert origins["segmenter"]["name"] == "dermoscopy"
    assert origins["segmenter"]["sha256"] == lender.sha256
    assert set(theirs.licence.split("; ")) <= set(own.licence.split("; "))
    roles = [row["role"] for row in describe(made, [], [])["training"]]
    assert any(role.startswith("segmenter, taken from the bundle dermoscopy") for role in roles)
    assert own.procedural
    # `evaluate` knows what either network learnt from.
    known, before = (TrainingPictures.from_bytes(bundle.part(FILE)) for bundle in (made, lender))
    for bits in (LEARNT, VAL):
        assert len(known.of("segmenter", bits)) == len(before.of("segmenter", bits)) > 0
    split = Split.load(export_runs / "classifier" / "split.json")
    assert len(known.of("classifier", LEARNT)) == len(split.parts["train"])

    assert cli.main(["verify", "--bundle", str(out)]) == 0
    assert "fail" not in capsys.readouterr().out
    picture = np.full((96, 128, 3), 200, np.uint8)
    picture[30:60, 40:80] = (90, 50, 40)
    analysis = Analyzer(made, threads=1).analyze(Picture(picture, 96, 128))
    assert set(analysis.probabilities) == set(own.labels)


def test_the_app_opens_what_was_put_together(export_runs, tiny_bundle, tmp_path, capsys):
    """Also where the lender says little of itself, and beside the run of a segmenter."""
    out = tmp_path / "whole.dermbundle"
    assert export(export_runs / "segmenter", out, "--with", tiny_bundle) == 0
    printed = capsys.readouterr().err
    assert "the classifier is the one of the bundle tiny" in printed
    assert "does not list what it learnt from" in printed
    made, lender = Bundle.open(out), Bundle.open(tiny_bundle)
    # `evaluate` says so, too.
    known = TrainingPictures.from_bytes(made.part(FILE))
    assert known.unknown == (f"the classifier of tiny@{lender.sha256[:12]}",)
    assert known.roles() == ("segmenter",)
    assert made.manifest.labels == lender.manifest.labels
    assert made.manifest.thresholds.see_doctor == lender.manifest.thresholds.see_doctor
    command = ["app", "--self-check", "--bundle", str(out), "--home", str(tmp_path / "home")]
    cli.main([*command, "--source", str(export_runs / "data")])
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("bundle"))
    assert " ok " in line


def test_crops_are_placed_by_the_lent_segmenter(export_runs, tiny_bundle, tmp_path, capsys):
    out = tmp_path / "cropped.dermbundle"
    run = shutil.copytree(export_runs / "cropped", tmp_path / "run")
    recipe = run / "recipe.toml"
    text = recipe.read_text().replace('crop_by = ""', f'crop_by = "{tiny_bundle}"')
    recipe.write_text(text)
    assert f"give --with {tiny_bundle}, whose segmenter placed them" in refused(capsys, run, out)
    assert export(run, out, "--with", tiny_bundle) == 0
    # The run notes none.
    assert f"{tiny_bundle}, whose segmenter placed the crops" in capsys.readouterr().err
    assert cli.main(["verify", "--bundle", str(out)]) == 0


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({}, ""),
        ({"threshold": 0.7}, "placed, and the one here is another: the device's crops are others"),
        ({"sha256": "0" * 64}, "is gone or another bundle by now: whether the segmenter here"),
        ({"path": "gone.dermbundle"}, "is gone or another bundle by now: whether the segmenter"),
    ],
)
def test_a_segmenter_that_did_not_place_the_crops_of_the_training_is_said(
    tiny_bundle, capsys, other, said
):
    bundle = Bundle.open(tiny_bundle)
    path = other.get("path", str(tiny_bundle))
    run = SimpleNamespace(folder="runs/x", teachers={path: other.get("sha256", bundle.sha256)})
    network = SimpleNamespace(recipe=SimpleNamespace(crop_by=path), run=run)
    limit = other.get("threshold", bundle.manifest.thresholds.mask)
    pipeline._warn_of_other_crops(network, bundle.model("segmenter"), limit)
    printed = capsys.readouterr().err
    assert said in printed
    assert bool(printed) == bool(said)


def test_learnt_test_pictures_are_named(export_runs, tmp_path, capsys):
    """HAM10000 as a class folder: the shipped segmenter knows some of what is tested."""
    from dermedge.data.fingerprint import of_names
    from train.run import of_split

    lender = Bundle.open(shipped()["dermoscopy"])
    number = TrainingPictures.from_bytes(lender.part(FILE)).of("segmenter", LEARNT).numbers[0]
    run = shutil.copytree(export_runs / "classifier", tmp_path / "run")
    split = Split.load(run / "split.json")
    names = {"train": (), "val": (), "test": (f"ISIC_{number:07}",)}
    prints = {part: of_names(ids) for part, ids in names.items()}
    (run / FILE).write_bytes(of_split("classifier", split, prints).to_bytes())
    assert export(run, tmp_path / "x.dermbundle", "--with", "dermoscopy") == 0
    printed = capsys.readouterr().err
    assert "warning: of procedural, 1 of 1 test pictures (1 by ISIC number" in printed
    assert "figures of the segmenter on them are too good" in printed


def test_networks_that_do_not_fit_are_refused(export_runs, tiny_bundle, tmp_path, capsys):
    out = tmp_path / "x.dermbundle"
    tiny = Bundle.open(tiny_bundle)
    parts = {name: tiny.part(name) for name in tiny.manifest.parts}
    models = tiny.manifest.models

    def lender(name: str, **changes) -> str:
        manifest = replace(tiny.manifest, **changes)
        used = {model.part for model in manifest.models.values()}
        kept = {part: content for part, content in parts.items() if part in used}
        return str(write_bundle(tmp_path / f"{name}.dermbundle", manifest, kept))

    segmenter, classifier = export_runs / "segmenter", export_runs / "classifier"
    alone = lender("alone", models={"classifier": models["classifier"]})
    assert "has no segmenter to take" in refused(capsys, classifier, out, "--with", alone)
    crops = replace(models["classifier"], preprocessing=Preprocessing(size=32, crop=1.5))
    cropping = lender("cropping", models={**models, "classifier": crops})
    line = refused(capsys, segmenter, out, "--with", cropping)
    assert "calibrated on crops that its own segmenter places" in line
    small = replace(models["segmenter"], precision="int8", targets=("x86",))
    sliced = lender("sliced", models={**models, "segmenter": small})
    line = refused(capsys, classifier, out, "--with", sliced)
    assert "has its segmenter in int8 alone" in line
    line = refused(capsys, classifier, out, "--with", "multitask")
    assert "one network of" in line
    assert "plays both roles" in line
    line = refused(capsys, export_runs / "multitask", out, "--with", "dermoscopy")
    assert "leave --with away" in line
    line = refused(capsys, segmenter, out, "--with", "dermoscopy", "--similar", "2")
    assert "--similar needs the run of a classifier" in line
    assert "no such" in refused_file(capsys, classifier, out).lower()
    assert not out.exists()


def refused_file(capsys, run, out) -> str:
    assert export(run, out, "--with", "nothing.dermbundle") != 0
    return capsys.readouterr().err
