"""What chooses and what decides: the halves of the validation part, and the lower bounds there."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermedge import UserError, cli
from dermedge.bundle.bundle import SHIPPED, Bundle, write_bundle
from dermedge.bundle.manifest import Thresholds, Variant
from dermedge.data import DataSet, Split, load, make_split
from dermedge.data.records import Record
from dermedge.data.split import group_records
from dermedge.evaluation import metrics
from export import ExportError, repack
from export.bundle.figures import class_figures
from export.bundle.summary import judged_line
from export.options import ExportOptions
from export.outliers import add
from export.quantization import candidates
from export.recheck import recheck
from export.validation.compare import compare
from export.validation.halves import ValidationPart, halve
from export.validation.outputs import Outputs, ValidationSet
from train.recipe import Acceptance, load_recipe

LABELS = ("bcc", "mel", "nv")
LIMITS = Thresholds(see_doctor=0.2, urgent=0.8)
TRIAGE = Acceptance(retained=0.0)
SENSITIVITY = Acceptance(retained=0.0, triage=0.0)


def validation_set_of(lesions: int, pictures: int = 1) -> tuple[ValidationSet, Outputs]:
    """A third of the lesions of each class; FP32 knows them all, some only just."""
    count = lesions * pictures
    groups = np.repeat(np.arange(lesions), pictures)
    targets = groups % len(LABELS)
    sure = np.random.default_rng(0).uniform(0.7, 0.99, count)
    probabilities = np.repeat((1 - sure[:, None]) / 2, len(LABELS), axis=1)
    probabilities[np.arange(count), targets] = sure
    probabilities[targets == 2] = np.array([0.05, 0.05, 0.9])
    validation_set = ValidationSet(
        feeds=[{}] * count, groups=groups, labels=LABELS, targets=targets
    )
    return validation_set, Outputs(probabilities, None, None, None)


def missing(outputs: Outputs, validation_set: ValidationSet, lesions: int) -> Outputs:
    """The same, but so many lesions of melanoma are called harmless."""
    changed = outputs.probabilities.copy()
    lost = np.unique(validation_set.groups[validation_set.targets == 1])[:lesions]
    changed[np.isin(validation_set.groups, lost)] = (0.05, 0.05, 0.9)
    return replace(outputs, probabilities=changed)


def words(validation_set: ValidationSet, first: Outputs, second: Outputs, **limits: float) -> str:
    only = {name: limits.get(name, 0.0) for name in ("retained", "sensitivity", "triage")}
    return "; ".join(
        one.words for one in compare(validation_set, first, second, LIMITS, Acceptance(**only))[1]
    )


# --- lower bounds --------------------------------------------------------------------------------


def test_shares_have_a_width_where_nothing_was_seen():
    assert metrics.wilson_interval(1.0, 100).low == pytest.approx(0.9630, abs=1e-4)
    assert metrics.wilson_interval(0.9, 50).low == pytest.approx(0.7864, abs=1e-4)
    z2 = 1.959964**2
    assert metrics.paired_share_interval(0, 0, 80).low == pytest.approx(-z2 / (80 + z2), abs=1e-6)
    apart = metrics.paired_share_interval(12, 2, 50)
    assert (apart.low, apart.high) == pytest.approx((0.0611, 0.3447), abs=1e-4)
    turned = metrics.paired_share_interval(2, 12, 50)
    assert (turned.low, turned.high) == pytest.approx((-apart.high, -apart.low))
    for empty in (metrics.wilson_interval(1.0, 0), metrics.paired_share_interval(0, 0, 0)):
        assert np.isnan(empty.low)


def test_a_bundle_states_a_width_where_all_malignant_ones_are_found():
    """Twenty pictures of ten malignant lesions, as many benign ones, one of which is alarmed."""
    right, wrong = np.log([0.9, 0.1]), np.log([0.1, 0.9])
    stated = np.array([right] * 20 + [wrong] * 18 + [right] * 2)
    targets, groups = np.repeat([0, 1], 20), np.repeat(np.arange(20), 2)
    limits = Thresholds(see_doctor=0.5)
    found = class_figures(stated, targets, groups, ("mel", "nv"), limits)["see_doctor"]
    assert found["sensitivity"]["low"] == pytest.approx(0.7225, abs=1e-4)  # Wilson's of ten
    assert 0.6 < found["specificity"]["low"] < found["specificity"]["high"] == 1


@pytest.mark.parametrize("lesions", [3, 30, 150])
def test_the_same_answers_of_a_few_pictures_show_nothing(lesions):
    """The bootstrap alone calls this certain: no resample has a change."""
    validation_set, outputs = validation_set_of(lesions)
    reasons = words(validation_set, outputs, outputs, triage=0.985)
    assert f"too few pictures to show at least 98.5%: {lesions} pictures; needs about" in reasons
    needed = int(re.search(r"needs about ([\d,]+)", reasons)[1].replace(",", ""))
    assert 240 <= needed <= 300
    assert words(validation_set, outputs, outputs, sensitivity=0.99).startswith(
        "sensitivity 1.0000 is 100"
    )


def test_the_same_answers_of_enough_pictures_pass():
    more, same = validation_set_of(300)
    assert words(more, same, same, triage=0.985, sensitivity=0.95, retained=0.99) == ""


def test_a_number_that_nobody_has_is_said_in_words():
    validation_set, outputs = validation_set_of(600)
    reasons = words(validation_set, outputs, missing(outputs, validation_set, 9), triage=0.98499)
    assert reasons.endswith("600 pictures; needs more than a hundred times as many")


def test_the_line_of_what_gives_no_numbers_has_no_gap():
    report = {"roles": ["classifier"], "precision": "fp16", "targets": ["arm"], "passed": False}
    report |= {"reasons": ["it gives no finite numbers"], "figures": {}, "speed": None}
    assert judged_line({**report, "share_of_fp32": 0.5}) == (
        "fp16 classifier for arm: REFUSED: it gives no finite numbers; speed not measured here; "
        "0.50 of FP32's size"
    )


def test_pictures_of_one_lesion_are_no_further_witnesses():
    validation_set, outputs = validation_set_of(30, pictures=20)
    assert "too few pictures" in words(validation_set, outputs, outputs, triage=0.985)
    assert "too few malignant" not in words(validation_set, outputs, outputs, sensitivity=0.8)
    assert "600 pictures" in words(validation_set, outputs, outputs, triage=0.985)


def test_a_point_estimate_that_clears_the_margin_is_not_enough():
    validation_set, outputs = validation_set_of(600)
    candidate = missing(outputs, validation_set, 8)
    figures, refusals = compare(
        validation_set, outputs, candidate, LIMITS, Acceptance(retained=0.0)
    )
    agreement = figures["triage_agreement"]
    assert agreement["value"] > 0.985 > agreement["low"]
    (refusal,) = refusals
    assert refusal.kind == "unsure"
    assert "too few pictures to show at least 98.5%: 600 pictures; needs about" in refusal.words
    validation_set, outputs = validation_set_of(1800)
    candidate = missing(outputs, validation_set, 8)
    figures, refusals = compare(
        validation_set, outputs, candidate, LIMITS, Acceptance(retained=0.0)
    )
    assert figures["triage_agreement"]["low"] > 0.985
    assert refusals == []


def test_sensitivity_is_compared_with_fp32_and_by_its_bound():
    validation_set, outputs = validation_set_of(300)  # of which 200 malignant
    for lost, refused in ((3, False), (8, True), (20, True)):
        candidate = missing(outputs, validation_set, lost)
        figures, refusals = compare(
            validation_set, outputs, candidate, LIMITS, Acceptance(retained=0.0, triage=0.0)
        )
        kept = figures["sensitivity"]["kept"]
        assert kept["value"] == pytest.approx(1 - lost / 200)
        assert kept["low"] < kept["value"]
        assert bool(refusals) == refused == (kept["low"] < 0.95)
    # FP32's own sensitivity is not the candidate's fault.
    strict = replace(LIMITS, see_doctor=0.9, urgent=0.95)
    figures, refusals = compare(
        validation_set, outputs, outputs, strict, Acceptance(retained=0.0, triage=0.0)
    )
    assert figures["sensitivity"]["fp32"] < 0.8
    assert figures["sensitivity"]["kept"]["value"] == 1


def test_a_mean_over_few_lesions_is_not_shown():
    validation_set, outputs = validation_set_of(48)
    reasons = words(validation_set, outputs, outputs, retained=0.99)
    assert "auc_malignant: too few pictures to show it: 16 lesions benign; needs at" in reasons
    assert "macro_auc" not in reasons
    few = compare(validation_set, outputs, outputs, LIMITS, Acceptance())[0]["few_lesions"]
    assert few == {"bcc": 16, "mel": 16, "nv": 16}
    alone = replace(
        validation_set, targets=np.where(validation_set.targets == 0, 1, validation_set.targets)
    )
    reasons = words(alone, outputs, outputs, retained=0.5)
    assert "macro_auc: too few pictures to show it: 0 lesions bcc" in reasons
    masks = ValidationSet([{}] * 12, np.arange(12), masks=[None] * 12)
    drawn = Outputs(None, None, np.full(12, 0.9), np.zeros((12, 4, 4)))
    assert "12 lesions outlined; needs at least 30" in words(masks, drawn, drawn, retained=0.99)


def test_a_loss_as_great_as_the_margin_is_seldom_taken_for_a_smaller_one():
    """Of 1,000 candidates that lose just what is allowed, 25 are to pass by chance."""
    rng = np.random.default_rng(0)
    for lost, gained in ((0.05, 0.0), (0.08, 0.03)):
        passed = 0
        for _ in range(1000):
            seen = rng.multinomial(150, [gained, lost, 1 - gained - lost])
            passed += metrics.paired_share_interval(seen[0], seen[1], 150).low >= -0.05
        assert passed < 40


# --- halves --------------------------------------------------------------------------------------


def data_of(lesions: list[tuple[str | None, int]], **patients: str) -> DataSet:
    """One lesion for each (label, number of pictures)."""
    records = [
        Record(
            f"p{n}-{k}", Path("x"), label=label, lesion_id=f"l{n}", patient_id=patients.get(f"l{n}")
        )
        for n, (label, pictures) in enumerate(lesions)
        for k in range(pictures)
    ]
    return DataSet("csv", Path("."), tuple(records), (), "none")


def split_of(data_set: DataSet, seed: int = 0) -> Split:
    ids = tuple(sorted(record.id for record in data_set.records))
    return Split("csv", seed, {"train": (), "val": ids, "test": ()})


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(["mel", "nv", "bcc", "df", None]), st.integers(1, 4)),
        min_size=2,
        max_size=60,
    ),
    st.integers(0, 5),
)
def test_halves_share_no_lesion_and_divide_every_class(lesions, seed):
    data_set = data_of(lesions)
    halves = halve(data_set, split_of(data_set, seed))
    assert halves.tuning | halves.accepting == {record.id for record in data_set.records}
    assert not halves.tuning & halves.accepting
    for group in group_records(data_set.records):
        assert len({record.id in halves.tuning for record in group}) == 1
    by_class = Counter(label for label, _ in lesions)
    for label, count in by_class.items():
        own = {record.id for record in data_set.records if record.label == label}
        sides = len(own & halves.tuning), len(own & halves.accepting)
        assert sides[0] > 0
        assert abs(sides[0] - sides[1]) <= 4  # the largest lesion
        assert count == 1 or sides[1] > 0
    shuffled = replace(data_set, records=data_set.records[::-1])
    assert halve(shuffled, split_of(data_set, seed)).tuning == halves.tuning


def test_halves_hang_on_the_split_and_keep_patients_together():
    lesions = [("nv", 1)] * 40 + [("mel", 1)] * 20
    data_set = data_of(lesions)
    first, second = (halve(data_set, split_of(data_set, seed)).tuning for seed in (0, 1))
    assert first != second
    one = data_of(lesions, **{f"l{n}": "p" for n in range(0, 60, 3)})
    halves = halve(one, split_of(one))
    patient = {record.id for record in one.records if record.patient_id}
    assert patient <= halves.tuning or patient <= halves.accepting
    sizes = halves.report()
    assert abs(sizes["tuning"]["pictures"] - 30) <= 1
    assert sizes["tuning"]["malignant"] == len(halves.tuning & halves.malignant)
    assert f"{sizes['tuning']['pictures']} pictures of" in str(halves)


def test_a_picture_outside_of_the_part_can_tie_two_in_it():
    data_set = data_of([("nv", 1)] * 8)
    ids = [record.id for record in data_set.records]
    # 0 and 7 show one lesion, by the word of the publisher about a training picture.
    train = Record("t", Path("x"), label="nv")
    tied = replace(
        data_set, records=(*data_set.records, train), same=((ids[0], "t"), ("t", ids[7]))
    )
    split = Split("csv", 0, {"train": (), "val": tuple(ids), "test": ()})
    halves = halve(tied, split)
    assert (ids[0] in halves.tuning) == (ids[7] in halves.tuning)


def test_pictures_of_the_other_modality_are_in_no_half():
    data_set = data_of([("nv", 2)] * 4 + [("mel", 2)] * 4)
    kinds = ("clinical", "dermoscopic", None, "clinical")
    records = [
        replace(record, modality=kinds[number % 4])
        for number, record in enumerate(data_set.records)
    ]
    both = replace(data_set, records=tuple(records))
    halves = halve(both, split_of(both), "clinical")
    kept = {record.id for record in records if record.modality != "dermoscopic"}
    assert halves.tuning | halves.accepting == kept
    part = ValidationPart.of(both, split_of(both), "clinical")
    assert {record.id for record in part.records} == kept


def test_one_lesion_cannot_be_halved():
    data_set = data_of([("nv", 5)])
    with pytest.raises(ExportError, match="shows 1 lesions or patients"):
        halve(data_set, split_of(data_set))


# --- a finished bundle ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tiny_bundle, tmp_path_factory):
    """A bundle with a good and a bad INT8, and its data: 60 validation pictures, a lesion each.

    To be read: whoever changes the bundle takes the copy of `finished`.
    """
    folder = tmp_path_factory.mktemp("finished")
    root = folder / "data"
    root.mkdir()
    lines = ["image,mask,diagnosis,lesion_id"]
    for number in range(80):
        dark = number % 2
        pixels = np.full((48, 64, 3), (220, 235, 250), np.uint8)
        mask = np.zeros((48, 64), np.uint8)
        cv2.circle(mask, (32, 24), 10 + number % 5, 255, cv2.FILLED)
        pixels[mask > 0] = (45, 60, 75)
        if dark:
            pixels //= 4
        cv2.imwrite(str(root / f"p{number}.png"), pixels)
        cv2.imwrite(str(root / f"p{number}_mask.png"), mask)
        lines.append(f"p{number}.png,p{number}_mask.png,{('nv', 'mel')[dark]},l{number}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    data_set = load("csv", root)
    split = make_split(data_set, fractions=(0.25, 0.75, 0.0))
    split.save(folder / "split.json")
    tiny = Bundle.open(tiny_bundle)
    parts = {name: tiny.part(name) for name in tiny.manifest.parts}
    parts["classifier-int8-x86.onnx"] = parts["classifier.onnx"]
    parts["classifier-int8-arm.onnx"] = inverted(parts["classifier.onnx"])
    model = replace(
        tiny.manifest.models["classifier"],
        variants=(
            Variant("classifier-int8-x86.onnx", "int8", ("x86",)),
            Variant("classifier-int8-arm.onnx", "int8", ("arm", "android")),
        ),
    )
    trained = [
        {"role": role, "data_set": "csv", "split_sha256": split.sha256}
        for role in tiny.manifest.models
    ]
    old = {"roles": ["classifier"], "precision": "int8", "targets": ["x86"], "passed": True}
    manifest = replace(
        tiny.manifest,
        models={**tiny.manifest.models, "classifier": model},
        training_data=tuple(trained),
        gate=({**old, "reasons": [], "path": ["by hand"], "figures": {}, "speed": None},),
    )
    path = write_bundle(folder / "finished.dermbundle", manifest, parts)
    return path, f"csv={root}", folder / "split.json"


@pytest.fixture
def finished(written, tmp_path):
    path, source, split = written
    return shutil.copy(path, tmp_path / path.name), source, split


def inverted(graph: bytes) -> bytes:
    """The classifier with two of its outputs changed about."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(graph)
    last = model.graph.node[-1]
    name = last.output[0]
    last.output[0] = "answers"
    model.graph.node.append(onnx.helper.make_node("Gather", ["answers", "order"], [name], axis=1))
    order = np.array([0, 1, 2, 3, 5, 4, 6])
    model.graph.initializer.append(onnx.numpy_helper.from_array(order, "order"))
    return model.SerializeToString()


LOOSE = [
    "--accept-retained=0",
    "--accept-triage=0.7",
    "--accept-sensitivity=0.7",
    "--accept-speedup=0",
]


def test_a_finished_bundle_is_judged_on_the_modality_that_it_learnt(finished, tmp_path):
    path, source, split = finished
    data_set = load(*source.split("=", 1))
    kinds = ("dermoscopic", "dermoscopic", "clinical", "clinical")
    records = tuple(
        replace(record, modality=kinds[number % 4])
        for number, record in enumerate(data_set.records)
    )
    bundle = Bundle.open(path)
    manifest = bundle.manifest
    trained = tuple({**entry, "modality": "clinical"} for entry in manifest.training_data)
    parts = {name: bundle.part(name) for name in manifest.parts}
    manifest = replace(manifest, training_data=trained)
    one = Bundle.open(write_bundle(tmp_path / "clinical.dermbundle", manifest, parts))
    margins = load_recipe("classifier").acceptance
    report, *_ = recheck(one, [replace(data_set, records=records)], [str(split)], margins).reports
    val = set(Split.load(split).parts["val"])
    there = sum(record.modality == "clinical" and record.id in val for record in records)
    judged = report["judged"]["accepting"]["pictures"]
    assert abs(judged - there / 2) <= 1 < there / 4


def test_a_finished_bundle_is_judged_again(finished, tmp_path, capsys):
    path, source, split = finished
    out = tmp_path / "new.dermbundle"
    command = ["export", "--recheck", str(path), "--data", source, "--split", str(split)]
    assert cli.main([*command, *LOOSE, "--out", str(out)]) == 1
    good, bad = capsys.readouterr().out.splitlines()
    assert "for x86: in" in good
    assert "REFUSED: " in bad
    assert "triage agrees with FP32 on" in bad
    assert "chosen on the whole validation part" in good
    made = Bundle.open(out)
    assert [v.targets for v in made.manifest.models["classifier"].variants] == [("x86",)]
    assert "classifier-int8-arm.onnx" not in made.manifest.parts
    passed, refused = made.manifest.gate
    assert passed["passed"]
    assert passed["path"] == ["by hand"]
    assert passed["judged"]["accepting"] == {"pictures": 30, "lesions": 30, "malignant": 15}
    assert passed["judged"]["margins"]["triage"] == 0.7
    assert passed["judged"]["independent"] is False
    assert not refused["passed"]
    # By the margins as they are, thirty pictures show nothing.
    assert cli.main(command) == 1
    reasons = capsys.readouterr().out
    assert reasons.count("REFUSED") == 2
    assert "too few pictures to show at least 98.5%: 30 pictures" in reasons


def test_one_target_beside_fp32_takes_nothing_along_for_others(finished, tmp_path):
    path, source, split = finished
    out = tmp_path / "kiosk.dermbundle"
    command = ["export", "--recheck", str(path), "--data", source, "--split", str(split)]
    command += [f"--accept-{name}=0" for name in ("retained", "sensitivity", "triage", "speedup")]
    assert cli.main([*command, "--for", "x86", "--beside-fp32", "--out", str(out)]) == 0
    made = Bundle.open(out)
    models = made.manifest.models
    assert {role: model.precision for role, model in models.items()} == dict.fromkeys(
        models, "fp32"
    )
    assert [v.targets for model in models.values() for v in model.variants] == [("x86",)]
    assert "classifier-int8-arm.onnx" not in made.manifest.parts


def test_graphs_are_told_apart_by_what_they_are_for(finished, tmp_path):
    path, source, split = finished
    bundle = Bundle.open(path)
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    graph = parts.pop("classifier-int8-x86.onnx")
    # One graph for all uses, under names that no export of today gives.
    parts |= dict.fromkeys(("old-x86.onnx", "old-half.onnx", "classifier-int8-arm.onnx"), graph)
    model = bundle.manifest.models["classifier"]
    half = ("arm", "tensorrt", "android")
    variants = (
        Variant("old-x86.onnx", "int8", ("x86",)),
        model.variants[1],
        Variant("old-half.onnx", "fp16", half),
    )
    models = {**bundle.manifest.models, "classifier": replace(model, variants=variants)}
    old = write_bundle(tmp_path / "old.dermbundle", replace(bundle.manifest, models=models), parts)
    loose = Acceptance(retained=0.0, triage=0.7, sensitivity=0.7, speedup=0.0)
    data_sets = [load(*source.split("=", 1))]
    judged = recheck(Bundle.open(old), data_sets, [str(split)], loose)
    assert judged.manifest.models["classifier"].variants == variants
    # One that is made again takes the place of the old one.
    options = ExportOptions(precisions=("fp32", "fp16"))
    made = recheck(Bundle.open(old), data_sets, [str(split)], loose, options)
    made = Bundle.open(write_bundle(tmp_path / "made.dermbundle", made.manifest, made.parts))
    (new,) = (v for v in made.manifest.models["classifier"].variants if v.precision == "fp16")
    assert new == Variant("classifier-fp16-arm.onnx", "fp16", half)
    assert "old-half.onnx" not in made.manifest.parts


def test_a_finished_bundle_gets_a_precision_without_its_runs(
    finished, tmp_path, capsys, monkeypatch
):
    path, source, split = finished
    out = tmp_path / "new.dermbundle"
    bundle, by = Bundle.open(path), []
    # So high that an export would lower it.
    limits = replace(bundle.manifest.thresholds, see_doctor=0.9999, urgent=1.0)
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    write_bundle(path, replace(bundle.manifest, thresholds=limits), parts)

    def noted(*given):
        by.append(given[3])
        return compare(*given)

    monkeypatch.setattr(candidates, "compare", noted)
    command = ["export", "--recheck", str(path), "--data", source, "--split", str(split)]
    command += ["--precisions", "fp32", "fp16", *LOOSE, "--out", str(out)]
    cli.main(command)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fp16")]
    assert lines
    before, made = Bundle.open(path), Bundle.open(out)
    assert made.manifest.thresholds == before.manifest.thresholds
    # The tuning half judges by them, too.
    assert by == [limits] * len(lines)
    for line in lines:
        role = line.split()[1]
        there = {v.precision for v in made.manifest.models[role].variants}
        assert ("fp16" in there) == (": in" in line), line
    # What a precision is judged against stays.
    assert all(made.model(role) == before.model(role) for role in before.manifest.models)


def test_a_precision_that_cannot_be_made_is_named_and_the_others_are_judged(finished, capsys):
    path, source, split = finished
    command = ["export", "--recheck", str(path), "--data", source, "--split", str(split)]
    assert cli.main([*command, "--precisions", "fp32", "fp16", "int8", *LOOSE]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        *(["fp16", role] for role in ("segmenter", "classifier")),
        *(["int8", f"{role}:"] for role in ("segmenter", "classifier")),
    ]
    assert all("not made: 20 training pictures are too few" in line for line in lines[2:])
    assert cli.main([*command, "--precisions", "fp32", "fp16", "--for", "x86"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"fp16 {role}: not made: it is for arm, tensorrt, android alone"
        for role in ("segmenter", "classifier")
    ]


def test_a_signature_is_not_lost_in_silence(finished, tmp_path, capsys):
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path, source, split = finished
    bundle, out, key = Bundle.open(path), tmp_path / "new.dermbundle", tmp_path / "key.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    none = serialization.NoEncryption()
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(*form, none))
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    write_bundle(path, replace(bundle.manifest, release=3), parts, signing_key=key.read_bytes())
    command = ["export", "--recheck", str(path), "--data", source, "--split", str(split), *LOOSE]
    assert cli.main([*command, "--out", str(out)]) == 2
    assert "is signed: give --sign KEYFILE" in capsys.readouterr().err
    assert not out.exists()
    for tool in (add, repack):
        with pytest.raises(UserError, match="is signed"):
            tool.main([str(path), str(out), "--data", source])
    for old in ([], ["--release", "3"]):
        with pytest.raises(UserError, match="is release 3"):
            add.main([str(path), str(out), "--data", source, "--sign", str(key), *old])
    command += ["--out", str(out), "--sign", str(key)]
    for old in ([], ["--release", "3"]):  # a device that has the new one would take it back
        assert cli.main([*command, *old]) == 2
        assert "is release 3" in capsys.readouterr().err
    assert not out.exists()
    assert cli.main([*command, "--release", "4"]) == 1
    made = Bundle.open(out)
    assert (made.signed, made.manifest.release) == (True, 4)


def test_recheck_takes_no_other_split(finished, tmp_path, capsys):
    path, source, _ = finished

    def refused(*options: str) -> str:
        assert cli.main(["export", *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    ask = ("--recheck", str(path))
    assert "trained with the split" in refused(*ask, "--data", source)
    assert "--recheck needs --data" in refused(*ask)
    assert "give the run folders, or --recheck" in refused(*ask, "run", "--data", source)
    assert "give the run folders, or --recheck" in refused("--out", "x.dermbundle")
    assert "go with --recheck" in refused("run", "--out", "x.dermbundle", "--data", source)
    assert "there is nothing to judge" in refused("--recheck", "smartphone", "--data", source)
    slice_ = ("--recheck", str(SHIPPED / "slices" / "dermoscopy-arm.dermbundle"), "--data", source)
    assert "one graph of each network" in refused(*slice_)
    assert "in int8, and no FP32 to compare with" in refused(
        *slice_, "--precisions", "fp32", "int8"
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--name", "other"), "--name goes with run folders"),
        (("--weights", "half"), "--weights goes with run folders"),
        (("--similar", "2"), "--similar goes with run folders"),
        (("--retrain", "300"), "--retrain goes with run folders"),
        (("--prior", "uniform"), "--prior goes with run folders"),
        (("--with", "dermoscopy"), "--with goes with run folders"),
        (("--release", "2"), "--release needs --out"),
        (("--calibration", "minmax"), "--calibration is of INT8"),
        (("--for", "arm"), "--for needs --out"),
        (("--precisions", "fp32", "fp16", "--for", "x86", "--beside-fp32"), "--beside-fp32 needs"),
    ],
)
def test_what_would_change_nothing_is_refused(capsys, options, reason):
    assert cli.main(["export", "--recheck", "dermoscopy", "--data", "csv=x", *options]) == 2
    assert reason in capsys.readouterr().err


def test_a_name_and_a_key_of_no_use_are_refused_before_the_work(tmp_path, capsys):
    key = tmp_path / "key.pem"
    key.write_text("no key")
    command = ["export", "run", "--out"]
    assert cli.main([*command, str(tmp_path / "model (2).dermbundle")]) == 2
    assert "give another --name" in capsys.readouterr().err
    assert cli.main([*command, str(tmp_path / "a.dermbundle"), "--sign", str(key)]) == 2
    assert "the signing key is" in capsys.readouterr().err
