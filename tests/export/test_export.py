"""Runs to bundles: what a bundle holds, what is kept from it, and what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn_networks import LABELS
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.report.repacked import LIST, hashes_of
from dermedge import DISCLAIMER, cli, files
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle, shipped, write_bundle
from dermedge.bundle.reference import STRIDE
from dermedge.bundle.similar import SimilarCases
from dermedge.data import Split, load, make_split
from dermedge.data import synthetic as procedural
from dermedge.data.fingerprint import of_pictures
from dermedge.data.leak import FILE, TRAIN, VAL, TrainingPictures, overlap
from dermedge.data.masks import read_lesion_picture
from dermedge.data.records import Record
from dermedge.image.preprocess import prepare
from dermedge.image.read import Picture, read_image
from dermedge.runtime import open_session
from dermedge.taxonomy import MALIGNANT
from export import ExportError, pipeline
from export.bundle import assemble as assembly
from export.bundle import figures
from export.bundle.summary import summary
from export.calibration import calibrate as calibration_stage
from export.calibration.calibrate import calibrate
from export.graph import onnx_graph
from export.graph.onnx_graph import TOLERANCE, check_parity
from export.quantization.candidates import training_feeds
from export.repack import repack
from export.runs.load import _pictures, _refuse_leaks, _refuse_others, load_networks
from export.thresholds import choose
from export.validation import prepared
from export.validation.halves import halve
from export.validation.prepared import cropper, subset
from export.validation.validate import validate
from train.run import load_run, of_split


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


# --- which pictures are looked at --------------------------------------------------------------


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([*LABELS, None]), min_size=1, max_size=120),
    st.integers(3, 60),
    st.randoms(use_true_random=False),
)
def test_the_sample_is_bounded_and_has_every_class(labels, most, random):
    records = [Record(str(i), None, label=label) for i, label in enumerate(labels)]
    chosen = subset(records, most)
    assert len(chosen) == len({record.id for record in chosen}) <= most + len(LABELS) + 1
    assert {record.label for record in chosen} == set(labels)
    if len(records) <= most:
        assert len(chosen) == len(records)
    random.shuffle(records)
    assert subset(records, most) == chosen


# --- runs to bundle ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(export_runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle") / "small.dermbundle"
    code = cli.main(
        [
            "export",
            str(export_runs / "classifier"),
            str(export_runs / "segmenter"),
            "--out",
            str(out),
        ]
    )
    assert code == 0
    return Bundle.open(out)


def test_the_bundle_says_what_it_is_made_of(bundle, export_runs):
    manifest = bundle.manifest
    run = load_run(export_runs / "classifier")
    assert manifest.name == "small"
    assert manifest.procedural
    assert manifest.labels == run.labels
    assert manifest.licence == procedural.LICENCE
    assert {entry["role"] for entry in manifest.training_data} == {"segmenter", "classifier"}
    for entry in manifest.training_data:
        assert entry["split_sha256"] == run.split_sha256
        assert entry["finished"]
        assert entry["recipe"] == entry["role"]
        stored = (export_runs / entry["role"] / "recipe.toml").read_bytes()
        assert entry["recipe_sha256"] == hashlib.sha256(stored).hexdigest()
        assert entry["commit"] == run.commit
    model = manifest.models["classifier"]
    assert (model.parameters, model.macs, model.weights) == (run.parameters, run.macs, "full")
    for role in ("segmenter", "classifier"):
        assert manifest.parity[role]["max_abs_difference"] <= TOLERANCE
        assert manifest.parity[role]["count"] > 0
        assert manifest.measured[role]["part"] == "val"
    halves = halve(
        load("procedural", export_runs / "data"),
        Split.load(export_runs / "classifier" / "split.json"),
    )
    for measured in manifest.measured.values():
        assert measured["half"] == "accepting"
        assert measured["pictures"] == len(halves.accepting)
        assert measured["halves"] == halves.report()
    assert 0 < manifest.measured["segmenter"]["jaccard"]["value"] <= 1
    # Whoever gets the bundle learns nothing of the machine that made it.
    assert str(export_runs).encode() not in bundle.path.read_bytes()


def test_only_the_modality_that_was_learnt_is_studied_and_measured(export_runs):
    (network,) = load_networks([export_runs / "classifier"])
    kinds = {
        record.id: ("clinical", "dermoscopic")[number % 2]
        for number, record in enumerate(network.data_set.records)
    }
    both = tuple(replace(r, modality=kinds[r.id]) for r in network.data_set.records)
    network = replace(
        network,
        data_set=replace(network.data_set, records=both),
        recipe=replace(network.recipe, modality="clinical"),
    )
    validation = validate(network)
    assert len(validation.classes.targets) == len(validation.part.records)
    measured = {record.id for record in validation.part.records}
    assert measured == {one for one in network.split.parts["val"] if kinds[one] == "clinical"}
    studied = calibrate(validation).training_records
    assert {kinds[record.id] for record in studied} == {"clinical"}


@pytest.mark.parametrize("name", ["segmenter", "classifier"])
def test_the_tuning_half_chooses_and_the_accepting_half_measures(export_runs, name, monkeypatch):
    sizes = {}
    for module, functions in (
        (choose, ("mask_threshold", "operating_points", "class_offsets", "ood_limit")),
        (calibration_stage, ("fit_temperature",)),
        (figures, ("mask_figures", "class_figures")),
    ):
        for function in functions:
            real = getattr(module, function)

            def noted(first, *others, function=function, real=real):
                sizes[function] = len(first)
                return real(first, *others)

            monkeypatch.setattr(module, function, noted)
    (network,) = load_networks([export_runs / name])
    validation = validate(network, precisions=True)
    calibration = calibrate(validation)
    thresholds = choose.choose_thresholds(validation, calibration)
    figures.measured(validation, calibration, thresholds)
    halves = validation.part.halves
    asked, chosen = len(halves.accepting), len(halves.tuning)
    assert sizes
    assert {n for f, n in sizes.items() if f.endswith("figures")} == {asked}
    assert {n for f, n in sizes.items() if not f.endswith("figures")} == {chosen}
    tuning, accepting = validation.sets
    assert (len(tuning.feeds), len(accepting.feeds)) == (chosen, asked)


def test_the_validation_part_is_read_once(export_runs, tmp_path, monkeypatch):
    """A multitask network in several precisions, too."""
    read = Counter()

    def counted(path):
        read[str(path)] += 1
        return read_lesion_picture(path)

    monkeypatch.setattr(prepared, "read_lesion_picture", counted)
    (network,) = load_networks([export_runs / "multitask"])
    validation = validate(network, precisions=True)
    records = network.split.select(network.data_set.records, "val")
    assert read == {str(record.image): 1 for record in records}
    assert len(validation.parity_feeds) == len(records)
    assert sum(len(half.feeds) for half in validation.sets) == len(records)
    assert len(validation.masks.groups) == len(validation.classes.groups) == len(records)


def test_partly_labelled_pictures_can_be_calibrated_and_judged_on(export_runs):
    (network,) = load_networks([export_runs / "multitask"])
    records = tuple(
        replace(record, label=None, diagnosis=None) if number % 3 else record
        for number, record in enumerate(network.data_set.records)
    )
    network = replace(network, data_set=replace(network.data_set, records=records))
    validation = validate(network, precisions=True)
    assert len(training_feeds(validation, 500)) == len(network.split.parts["train"])
    tuning, accepting = validation.sets
    assert len(tuning.feeds) + len(accepting.feeds) == len(network.split.parts["val"])
    assert {-1} < {*tuning.targets, *accepting.targets}
    assert len(validation.classes.targets) < len(validation.masks.jaccards)


def test_a_half_without_malignant_lesions_chooses_no_threshold(export_runs):
    (network,) = load_networks([export_runs / "classifier"])
    malignant = {r.id for r in network.data_set.records if r.label in MALIGNANT}
    val = [name for name in network.split.parts["val"] if name not in malignant]
    one = next(name for name in network.split.parts["val"] if name in malignant)
    parts = {**network.split.parts, "val": tuple(sorted([*val, one]))}
    validation = validate(replace(network, split=replace(network.split, parts=parts)))
    with pytest.raises(ExportError, match=r"the accepting half .* has only benign lesions"):
        choose.choose_thresholds(validation, calibrate(validation))


def test_the_bundle_names_no_picture_but_knows_them(bundle, export_runs):
    split = Split.load(export_runs / "segmenter" / "split.json")
    assert not {name for name in bundle.manifest.parts if name.startswith("split")}
    everything = b"".join(bundle.part(name) for name in bundle.manifest.parts)
    everything += bundle.manifest.to_json().encode()
    assert not [name for ids in split.parts.values() for name in ids if name.encode() in everything]
    for entry in bundle.manifest.training_data:
        assert entry["split_parts"] == {part: len(ids) for part, ids in split.parts.items()}
    listed = TrainingPictures.from_bytes(bundle.part(FILE))
    records = load("procedural", export_runs / "data").records
    for part, bits in (("train", TRAIN), ("val", VAL), ("test", TRAIN | VAL)):
        prints, _ = of_pictures(split.select(records, part))
        for role in ("segmenter", "classifier"):
            known = overlap(prints, listed.of(role, bits))
            assert known.astype(bool).all() if part != "test" else not known.any()


def check_reference(bundle):
    """Prepare and compute the reference again, as a device does; return it."""
    reference = np.load(io.BytesIO(bundle.part("reference.npz")))
    grid = slice(None, None, STRIDE)
    for role in ("segmenter", "classifier"):
        model = bundle.manifest.models[role]
        kind, spec = model.part.removesuffix(".onnx"), model.preprocessing
        session = open_session(bundle.model(role), threads=1)
        for index, picture in enumerate(reference["pictures"]):
            square, _ = prepare(picture, spec)
            assert np.array_equal(square[grid, grid], reference[f"{kind}_image"][index])
            absent = {item.name: np.zeros(item.shape, item.dtype) for item in session.inputs}
            found = session.run({**absent, "image": square[None]})
            for name, value in found.items():
                value = value[0, grid, grid] if name == "mask" else value[0]
                assert value == pytest.approx(reference[f"{kind}_{name}"][index], abs=1e-5)
    return reference


def test_a_device_can_check_itself(bundle):
    reference = check_reference(bundle)
    analyzer = Analyzer(bundle, threads=1)
    for picture, expected in zip(
        reference["pictures"], reference["classifier_probabilities"], strict=True
    ):
        found = analyzer.analyze(Picture(picture, *picture.shape[:2])).probabilities
        assert list(found.values()) == pytest.approx(expected, abs=1e-5)


def test_one_multitask_run_plays_both_roles(export_runs, tmp_path, capsys):
    out = tmp_path / "both.dermbundle"
    options = ["--weights", "half", "--similar", "2", "--similar-pictures", "--out", str(out)]
    assert cli.main(["export", str(export_runs / "multitask"), *options]) == 0
    printed = capsys.readouterr().err
    assert "with the picture alone: AUC malignant" in printed
    opened = Bundle.open(out)
    manifest = opened.manifest
    assert manifest.models["segmenter"] == manifest.models["classifier"]
    assert manifest.models["classifier"].part == "multitask.onnx"
    assert manifest.models["classifier"].weights == "half"
    assert manifest.models["classifier"].metadata == ("age", "sex", "site")
    assert manifest.thresholds.unfamiliar > 0
    assert set(manifest.measured) == {"segmenter", "classifier"}
    measured = manifest.measured["classifier"]
    # An AUC of so few pictures may stay as it is; the calibration moves with every answer.
    assert measured["ece"] != measured["without_metadata"]["ece"]
    (entry,) = manifest.training_data
    assert entry["role"] == "multitask"
    check_reference(opened)
    cases = SimilarCases.from_bytes(opened.part("cases.npz"), len(manifest.labels))
    assert 0 < len(cases.ids) <= 2 * len(manifest.labels)
    assert max(np.bincount(cases.labels)) <= 2
    # The data set's ids stay at home: they may be a hospital's file names.
    assert list(cases.ids) == [f"case-{number}" for number in range(1, 1 + len(cases.ids))]
    assert np.abs(cases.picture(cases.ids[0]).astype(int) - 128).max() > 0


def test_crops_are_where_the_segmenter_sees_a_lesion(tiny_bundle):
    opened = Bundle.open(tiny_bundle)
    session = open_session(opened.model("segmenter"), threads=1)
    crop = cropper(session, opened.manifest.models["segmenter"].preprocessing, 0.5)
    picture = np.full((96, 128, 3), 220, np.uint8)
    assert crop(picture) is None
    picture[20:60, 70:100] = 20
    assert crop(picture) == pytest.approx((70, 20, 30, 40), abs=3)


def test_a_classifier_of_crops_is_calibrated_on_crops(export_runs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "cropped.dermbundle"
    assert "add the run of a segmenter" in refused(capsys, export_runs / "cropped", "--out", out)
    box, fed = (40, 30, 30, 24), []
    monkeypatch.setattr(assembly, "cropper", lambda *_: lambda pixels: box)
    monkeypatch.setattr(
        onnx_graph, "check_parity", lambda *given: fed.append(given[2]) or check_parity(*given)
    )
    folders = [str(export_runs / name) for name in ("cropped", "segmenter")]
    assert cli.main(["export", *folders, "--out", str(out)]) == 0
    opened = Bundle.open(out)
    spec = opened.manifest.models["classifier"].preprocessing
    assert spec.crop == 1.5
    split = Split.load(export_runs / "cropped" / "split.json")
    records = split.select(load("procedural", export_runs / "data").records, "val")
    expected = {prepare(read_image(r.image).pixels, spec, box)[0].tobytes() for r in records}
    whole, cropped = ({feed["image"].tobytes() for feed in feeds} for feeds in fed)
    assert cropped <= expected
    assert not whole & expected
    reference = np.load(io.BytesIO(opened.part("reference.npz")))
    grid = slice(None, None, STRIDE)
    for picture, image in zip(reference["pictures"], reference["classifier_image"], strict=True):
        assert np.array_equal(prepare(picture, spec, box)[0][grid, grid], image)


@pytest.mark.parametrize("role", ["segmenter", "classifier"])
def test_one_network_alone_makes_a_bundle_for_evaluation(role, export_runs, tmp_path, capsys):
    out = tmp_path / "one.dermbundle"
    assert cli.main(["export", str(export_runs / role), "--out", str(out)]) == 0
    other = {"segmenter": "classifier", "classifier": "segmenter"}[role]
    assert f"for evaluation only: the app needs a {other} too" in capsys.readouterr().err
    opened = Bundle.open(out)
    assert list(opened.manifest.models) == list(opened.manifest.measured) == [role]
    assert (opened.manifest.labels == ()) == (role == "segmenter")
    assert TrainingPictures.from_bytes(opened.part(FILE)).roles() == (role,)


def test_a_signed_bundle_and_its_summary(bundle, export_runs, capsys, tmp_path):
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "key.pem").write_bytes(private)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    folders = [str(export_runs / "classifier"), str(export_runs / "segmenter")]
    out = tmp_path / "signed.dermbundle"
    options = ["--out", str(out), "--name", "clinic", "--sign", str(tmp_path / "key.pem")]
    options += ["--release", "4"]
    assert cli.main(["export", *folders, *options]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    for words in ("Jaccard", "AUC malignant", "thresholds", "generated pictures", DISCLAIMER):
        assert words in printed.err
    signed = Bundle.open(out, trusted_key=public)
    assert signed.signed_by
    assert signed.manifest.name == "clinic"
    assert signed.manifest.release == 4
    # The same runs give the same parts, byte for byte; of the graphs themselves test_graph says so.
    for part in bundle.manifest.parts:
        assert signed.part(part) == bundle.part(part)


def test_the_summary_of_a_bundle_that_states_few_figures(tiny_bundle, tmp_path):
    bundle, path = Bundle.open(tiny_bundle), tmp_path / "few.dermbundle"
    report = {"roles": ["segmenter"], "precision": "fp16", "targets": ["arm"]}
    few = replace(
        bundle.manifest,
        measured={"segmenter": {"pictures": 3}, "classifier": {"ece": None, "auc_malignant": {}}},
        gate=tuple(
            {**report, "precision": precision, "passed": True, "reasons": []}
            for precision in ("fp32", "fp16")
        ),
    )
    write_bundle(path, few, {name: bundle.part(name) for name in bundle.manifest.parts})
    lines = "\n".join(summary(Bundle.open(path)))
    for words in (
        "Jaccard unknown",
        "ECE unknown",
        "fp32 segmenter for arm: in;",
        "fp16 segmenter for arm: passed, but not in this bundle;",  # as in one for x86 alone
        "unknown of FP32",
    ):
        assert words in lines, words


def test_a_graph_that_differs_leaves_what_was_there(export_runs, tmp_path, capsys, monkeypatch):
    out = tmp_path / "kept.dermbundle"
    out.write_bytes(b"the bundle of last month")
    monkeypatch.setattr(onnx_graph, "TOLERANCE", -1.0)
    command = ["export", str(export_runs / "segmenter"), "--out", str(out)]
    assert cli.main(command) == 2
    assert "the export is refused" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["kept.dermbundle"]
    assert out.read_bytes() == b"the bundle of last month"


def test_a_full_disk_leaves_what_was_there(bundle, export_runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "kept.dermbundle"
    out.write_bytes(b"the bundle of last month")
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    monkeypatch.setattr(pipeline, "export_runs", lambda *_: (bundle.manifest, parts))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    words = (export_runs / "classifier", export_runs / "segmenter", "--out", out)
    assert "No space left" in refused(capsys, *words, status=1)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.dermbundle"]
    assert out.read_bytes() == b"the bundle of last month"


def refused(capsys, *arguments, status: int = 2) -> str:
    """What `dermedge export` says, in one line, when it refuses."""
    assert cli.main(["export", *map(str, arguments)]) == status
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_runs_that_make_no_bundle_are_refused(export_runs, tmp_path, capsys):
    out = ("--out", tmp_path / "x.dermbundle")
    segmenter, classifier = export_runs / "segmenter", export_runs / "classifier"
    assert "both a segmenter" in refused(capsys, segmenter, segmenter, classifier, *out)
    assert "both a classifier" in refused(capsys, classifier, export_runs / "multitask", *out)
    assert "--similar must be 0 to 8" in refused(
        capsys, segmenter, classifier, "--similar", "9", *out
    )
    assert "--release must be 1" in refused(capsys, segmenter, classifier, "--release", "0", *out)
    # A device knows a bundle by its name: of another one it would take an earlier release again.
    assert "give --name, the same" in refused(capsys, segmenter, classifier, "--release", "2", *out)
    assert "no run folder" in refused(capsys, tmp_path, *out)
    # Before anything is measured.
    few = refused(capsys, segmenter, classifier, *out, "--precisions", "fp32", "int8")
    assert "training pictures are too few to calibrate INT8 on: 500 are needed" in few
    assert f"{segmenter}: " in few
    # Named behind them, the run is one of the precisions: not that none was given.
    assert "got fp32 int8 " in refused(capsys, *out, "--precisions", "fp32", "int8", segmenter)
    assert ".dermbundle" in refused(capsys, segmenter, classifier, "--out", tmp_path / "x.zip")
    missing = tmp_path / "none" / "x.dermbundle"
    assert "no folder" in refused(capsys, segmenter, classifier, "--out", missing)
    assert list(tmp_path.iterdir()) == []
    out[1].mkdir()
    assert "x.dermbundle is a folder" in refused(capsys, segmenter, classifier, *out)
    recheck = ("--recheck", "dermoscopy", "--data", "csv=nowhere")
    assert "x.dermbundle is a folder" in refused(capsys, *recheck, *out)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (["--cases", "9"], "--similar", "--similar must be 0 to 8, got 9"),
        (["--case-pictures"], "--similar-pictures", "--similar-pictures needs --similar N"),
        (["--gate-triage", "2"], "--accept-triage", "--accept-triage must lie in 0 to 1, got 2"),
    ],
)
def test_options_of_the_first_version_do_the_same_and_say_the_new_name(capsys, old, new, reason):
    assert cli.main(["export", "run", "--out", "x.dermbundle", *old]) == 2
    notice, refusal = capsys.readouterr().err.splitlines()
    assert notice == f"dermedge: {old[0]} is now called {new}"
    assert reason in refusal
    with pytest.raises(SystemExit):
        cli.main(["export", "--help"])
    assert old[0] not in capsys.readouterr().out.split()


def test_a_damaged_run_is_refused(export_runs, tmp_path, capsys):
    segmenter = shutil.copytree(export_runs / "segmenter", tmp_path / "segmenter")
    command = (segmenter, export_runs / "classifier", "--out", tmp_path / "x.dermbundle")
    (segmenter / "best.pt").write_bytes(b"no weights")
    assert f"{segmenter / 'best.pt'} cannot be read" in refused(capsys, *command)
    stored = segmenter / "run.json"
    stored.write_text(stored.read_text().replace("mobilegan-nano", "newer_net"))
    assert "there is no segmenter 'newer_net'" in refused(capsys, *command)
    assert not (tmp_path / "x.dermbundle").exists()


@pytest.mark.parametrize(
    ("labels", "said"),
    [(("bcc", "mel"), "only malignant classes"), (("bkl", "nv"), "only benign classes")],
)
def test_a_run_of_one_kind_of_classes_is_refused(export_runs, tmp_path, capsys, labels, said):
    """Before its pictures are measured, and not for its split, which another one would not mend."""
    run = shutil.copytree(export_runs / "classifier", tmp_path / "run")
    replace(load_run(run), labels=labels).save()
    line = refused(capsys, run, "--out", tmp_path / "x.dermbundle")
    assert said in line
    assert "train with classes of both kinds" in line


def test_a_run_that_was_stopped_is_exported_and_named(export_runs, tmp_path, capsys):
    stopped = shutil.copytree(export_runs / "classifier", tmp_path / "stopped")
    replace(load_run(stopped), steps=1, finished=False).save()
    out = tmp_path / "x.dermbundle"
    assert (
        cli.main(["export", str(stopped), str(export_runs / "segmenter"), "--out", str(out)]) == 0
    )
    printed = capsys.readouterr().err
    assert "the training of the classifier stopped at step 1 of 2" in printed
    assert "the segmenter stopped" not in printed
    found = {entry["role"]: entry for entry in Bundle.open(out).manifest.training_data}
    assert not found["classifier"]["finished"]
    assert found["classifier"]["planned_steps"] == 2


def resplit(run_folder, target, split):
    """A copy of a run as if it had been trained on `split`."""
    shutil.copytree(run_folder, target)
    content = json.loads((target / "run.json").read_text())
    content |= {"data_set": split.data_set, "split_sha256": split.sha256}
    (target / "run.json").write_text(json.dumps(content))
    split.save(target / "split.json")
    return target


def test_a_run_whose_pictures_were_moved_says_what_to_do(export_runs, tmp_path):
    own = tmp_path / "a:b"
    run = replace(load_run(export_runs / "segmenter"), data_root=str(own))
    with pytest.raises(ExportError, match=r"no longer in \S+/a:b: put them back, or give the"):
        _pictures(run)
    own.symlink_to(export_runs / "data")
    assert _pictures(run).records
    roots = os.pathsep.join([str(tmp_path), "/none"])
    with pytest.raises(ExportError, match=r"no longer in /none: .* again with --data"):
        _pictures(replace(run, data_set="procedural+csv", data_root=roots))


def test_a_licence_that_binds_both_networks_is_stated_once():
    runs = ("CC BY 4.0; CC BY-NC 4.0; CC0 1.0", "CC BY 4.0; CC BY-NC 4.0", "")
    assert assembly._licences(runs) == "CC BY 4.0; CC BY-NC 4.0; CC0 1.0"


def test_other_pictures_under_the_names_of_a_runs_are_refused(tmp_path):
    """A table that was numbered again: thresholds were chosen on what the network had learnt."""
    procedural.write_data_set(tmp_path / "data", 12, size=(64, 64))
    data_set = load("procedural", tmp_path / "data")
    split = make_split(data_set, fractions=(0.5, 0.5, 0.0))
    parts = {part: split.select(data_set.records, part) for part in split.parts}
    prints = {part: of_pictures(records)[0] for part, records in parts.items()}
    (tmp_path / FILE).write_bytes(of_split("segmenter", split, prints).to_bytes())
    run = SimpleNamespace(folder=tmp_path, kind="segmenter", data_root=str(tmp_path / "data"))
    _refuse_others(run, split, data_set)
    for one, other in zip(parts["train"], parts["val"], strict=False):
        shutil.copy(one.image, other.image)
    with pytest.raises(ExportError, match="was validated on, and are others: put them back"):
        _refuse_others(run, split, data_set)
    # What cannot be read is nobody else's: it is named where it is left out.
    for record in parts["val"]:
        record.image.write_bytes(b"")
    _refuse_others(run, split, data_set)


def test_different_splits_of_one_data_set_are_refused(export_runs, tmp_path, capsys):
    other = make_split(load("procedural", export_runs / "data"), seed=7)
    moved = resplit(export_runs / "segmenter", tmp_path / "moved", other)
    line = refused(capsys, moved, export_runs / "classifier", "--out", tmp_path / "x.dermbundle")
    assert "split procedural differently" in line
    assert not (tmp_path / "x.dermbundle").exists()


def test_isic_pictures_that_one_learnt_and_the_other_is_tested_on_are_refused(
    export_runs, tmp_path, capsys
):
    learnt = Split("isic2017", 0, {"train": ("ISIC_0000007",), "val": (), "test": ()})
    tested = Split("ham10000", 0, {"train": (), "val": (), "test": ("ISIC_0000007",)})
    folders = [
        resplit(export_runs / "segmenter", tmp_path / "one", learnt),
        resplit(export_runs / "classifier", tmp_path / "two", tested),
    ]
    assert cli.main(["export", *map(str, folders), "--out", str(tmp_path / "x.dermbundle")]) == 2
    lines = capsys.readouterr().err.splitlines()
    # Their pictures are gone, so only numbers can be compared; that is said, too.
    assert all("compared by ISIC number alone" in line for line in lines[:-1])
    assert "1 of 1 test pictures (1 by ISIC number; first: ISIC_0000007)" in lines[-1]


@pytest.mark.parametrize("shared", [False, True])
def test_two_tables_of_ones_own_are_two_data_sets(export_runs, tmp_path, capsys, shared):
    """Their reader has one name; what counts is whether one learnt the other's test pictures."""
    learnt = Split("csv", 0, {"train": ("ISIC_0000007",), "val": (), "test": ()})
    name = "ISIC_0000007" if shared else "ISIC_0000008"
    tested = Split("csv", 0, {"train": (), "val": (), "test": (name,)})
    runs = [
        replace(load_run(resplit(export_runs / kind, tmp_path / kind, split)), data_root=kind)
        for kind, split in (("segmenter", learnt), ("classifier", tested))
    ]
    if shared:
        with pytest.raises(ExportError, match="1 of 1 test pictures"):
            _refuse_leaks(runs, (learnt, tested))
    else:
        _refuse_leaks(runs, (learnt, tested))
    one_root = [replace(run, data_root="x") for run in runs]
    with pytest.raises(ExportError, match="split csv differently"):
        _refuse_leaks(one_root, (learnt, tested))


def test_bundles_of_the_first_version_lose_their_ids_and_nothing_else(
    bundle, export_runs, tmp_path
):
    data_set = load("procedural", export_runs / "data")
    split = (export_runs / "segmenter" / "split.json").read_bytes()
    parts = {name: bundle.part(name) for name in bundle.manifest.parts if name != FILE}
    old = write_bundle(tmp_path / "old.dermbundle", bundle.manifest, {**parts, "split.json": split})
    manifest, new = repack(Bundle.open(old), {data_set.name: data_set})
    assert new.keys() == {*parts, FILE}
    assert all(new[name] == content for name, content in parts.items())
    assert new[FILE] == bundle.part(FILE)
    assert replace(manifest, parts={}) == replace(bundle.manifest, parts={})


def test_shipped_bundles_name_no_picture_and_their_figures_are_still_theirs():
    listed = json.loads(LIST.read_text())
    for path in shipped().values():
        opened = Bundle.open(path)
        assert not {name for name in opened.manifest.parts if name.startswith("split")}
        was = [entry["was"] for entry in listed if entry["bundle"] == path.name]
        assert hashes_of(opened) == (opened.sha256, *was)
        if "cases.npz" in opened.manifest.parts:
            cases = SimilarCases.from_bytes(opened.part("cases.npz"), len(opened.manifest.labels))
            assert all(name.startswith("case-") for name in cases.ids)
        training = TrainingPictures.from_bytes(opened.part(FILE))
        for data in opened.manifest.training_data:
            roles = training.roles() if data["role"] == "multitask" else (data["role"],)
            for role in roles:
                for part, bits in (("train", TRAIN), ("val", VAL)):
                    assert len(training.of(role, bits)) == data["split_parts"][part]


def test_a_changed_split_is_refused(export_runs, tmp_path, capsys):
    copied = shutil.copytree(export_runs / "segmenter", tmp_path / "copied")
    make_split(load("procedural", export_runs / "data"), seed=7).save(copied / "split.json")
    line = refused(capsys, copied, export_runs / "classifier", "--out", tmp_path / "x.dermbundle")
    assert "not the split that this run was trained on" in line
