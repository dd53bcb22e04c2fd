"""A run starts from the network of a bundle, exactly; its licence and its pictures bind."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from dermedge import UserError
from dermedge.bundle.bundle import open_bundle, shipped, write_bundle
from dermedge.data import DataSet, Record, Split
from dermedge.data.fingerprint import of_names
from dermedge.data.leak import EARLIER, FILE, LEARNT, TRAIN, TrainingPictures, published
from dermedge.data.synthetic import draw
from dermedge.image.preprocess import prepare
from dermedge.image.read import write_png
from dermedge.taxonomy import CLASSES
from train import loop, origins
from train.graphs import bundled_network, difference, fill
from train.leaks import check_leaks
from train.models import build_model
from train.origins import start_network
from train.recipe import load_recipe
from train.run import load_model
from train.start import settle_norms

LABELS = ("akiec", "mel", "nv", "other")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def squares(seeds: range, size: int) -> np.ndarray:
    images = [draw(seed, size=(96, 128)).image for seed in seeds]
    spec = load_recipe("classifier", [f"preprocessing.size={size}"]).preprocessing
    return np.stack([prepare(image, spec)[0] for image in images])


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("dermoscopy", "segmenter"),
        ("dermoscopy", "classifier"),
        ("smartphone", "classifier"),
        ("multitask", "segmenter"),
    ],
)
def test_the_network_of_a_shipped_bundle_answers_as_its_graph(name, role):
    bundle = open_bundle(name)
    entry = bundle.manifest.models[role]
    model = bundled_network(bundle, role)
    graph = bundle.part(entry.part)
    temperature = bundle.manifest.measured["classifier"]["temperature"]
    image = squares(range(40, 43), entry.preprocessing.size)
    settle_norms(model, [torch.from_numpy(image)])
    for square in squares(range(7, 9), entry.preprocessing.size):
        assert difference(model, graph, square, temperature) < 1e-5


def test_training_begins_with_that_network_and_not_with_noise():
    model = bundled_network(open_bundle("dermoscopy"), "classifier")
    model.net.head.layers[0].p = 0.0  # dropout
    image = torch.from_numpy(squares(range(60, 76), 96))
    with torch.no_grad():
        wanted = model(image)
        # As it is: batch norms that were folded away would norm all there is.
        plain = copy.deepcopy(model).train()(image)
        settle_norms(model.eval(), [image])
        settled = model.train()(image)

    def agreement(answer: torch.Tensor) -> float:
        return float(torch.corrcoef(torch.stack([answer.flatten(), wanted.flatten()]))[0, 1])

    assert agreement(settled) > 0.9 > agreement(plain)


def test_rows_of_shared_classes_are_kept_and_the_others_said(capsys):
    bundle = open_bundle("dermoscopy")
    known = bundled_network(bundle, "classifier").net.head.layers[-1]
    torch.manual_seed(0)
    model = build_model("mobilenet_v2", LABELS)
    own = model.net.head.layers[-1].weight.detach().clone()
    assert start_network(model, "dermoscopy", "classifier", LABELS) == (True, [])
    said = capsys.readouterr().err
    assert "classes kept: akiec, mel, nv; new: other" in said
    assert "dropped: bcc, bkl, df, vasc, scc" in said
    assert "CC BY-NC 4.0" in said
    last = model.net.head.layers[-1]
    for row, label in enumerate(LABELS[:3]):
        theirs = bundle.manifest.labels.index(label)
        assert torch.equal(last.weight[row], known.weight[theirs])
        assert torch.equal(last.bias[row], known.bias[theirs])
    assert torch.equal(last.weight[3], own[3])
    # As many classes, but others: no row of another class stands in for one.
    others = ("bcc", "df", "scc")
    start_network(build_model("mobilenet_v2", others), "smartphone", "classifier", others)
    assert "classes kept: bcc, scc; new: df" in capsys.readouterr().err


def test_metadata_that_differs_starts_anew_and_the_same_is_kept():
    theirs = bundled_network(open_bundle("smartphone"), "classifier").net.head.metadata
    labels = open_bundle("smartphone").manifest.labels
    same = build_model("mobilenet_v2", labels, metadata=("age", "site"))
    start_network(same, "smartphone", "classifier", labels)
    assert torch.equal(same.net.head.metadata[0].weight, theirs[0].weight)
    other = build_model("mobilenet_v2", labels, metadata=("age",))
    own = other.net.head.metadata[0].weight.clone()
    start_network(other, "smartphone", "classifier", labels)
    assert torch.equal(other.net.head.metadata[0].weight, own)
    assert torch.equal(other.net.head.layers[-1].weight, same.net.head.layers[-1].weight)


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        ("mobilenet_v3_small", "classifier", "of another network"),
        ("mobilegan", "segmenter", "of another network"),
    ],
)
def test_a_start_of_another_architecture_is_refused(model, kind, words):
    labels = LABELS if kind == "classifier" else ()
    with pytest.raises(UserError, match=words):
        start_network(build_model(model, labels), "dermoscopy", kind, labels)


def test_graphs_that_are_of_another_network_or_lack_a_role_are_refused(tiny_bundle, tmp_path):
    bundle = open_bundle("dermoscopy")
    with pytest.raises(ValueError, match="the graph has"):
        fill(build_model("mobilenet_v3_small", LABELS), bundle.model("classifier"))
    # A graph that nobody trained with this code.
    with pytest.raises(UserError, match=r"cannot be read back|is not known here"):
        bundled_network(open_bundle(tiny_bundle), "classifier")
    with pytest.raises(UserError, match=r"a bundle \(dermoscopy, multitask, smartphone"):
        start_network(build_model("mobilenet_v2", LABELS), "skin", "classifier", LABELS)


# --- a run ---------------------------------------------------------------------------------------


def drawn(folder: Path, pattern: str = "p{:02}", count: int = 16) -> DataSet:
    rng = np.random.default_rng(3)
    records = []
    for number in range(count):
        coarse = rng.integers(60, 230, (8, 8, 3), np.uint8)
        path = folder / f"{number:02}.png"
        write_png(path, cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC))
        label = ("mel", "nv")[number % 2]
        records.append(Record(pattern.format(number), path, label=label, malignant=label == "mel"))
    return DataSet("csv", folder, tuple(records), (), "CC0")


def parts_of(data_set: DataSet) -> Split:
    ids = [record.id for record in data_set.records]
    return Split(
        "csv", 0, {"train": tuple(ids[:12]), "val": tuple(ids[12:14]), "test": tuple(ids[14:])}
    )


def recipe(*overrides: str):
    tiny = ["preprocessing.size=32", "batch_size=4", "max_steps=1", "workers=0", "ema=0"]
    plain = ["pretrained=no", "model=mobilenet_v2", "start=dermoscopy"]
    return load_recipe("classifier", [*tiny, *plain, *overrides])


def test_a_run_records_its_start_and_the_licence_that_binds_it(tmp_path):
    pictures = drawn(tmp_path)
    run = loop.train(recipe(), pictures, parts_of(pictures), tmp_path / "run")
    assert run.start == f"dermoscopy@{open_bundle('dermoscopy').sha256[:12]}"
    assert run.licence == "CC0; CC BY-NC 4.0; CC0 1.0"
    listed = TrainingPictures.from_bytes((run.folder / FILE).read_bytes())
    known = TrainingPictures.from_bytes(open_bundle("dermoscopy").part(FILE))
    assert len(listed.of("classifier", EARLIER)) == len(known.of("classifier", LEARNT)) > 7000
    assert load_model(run).net.head.layers[-1].out_features == 2


def test_a_bundle_as_a_file_or_a_teacher_and_what_is_gone_when_the_run_goes_on(tmp_path, capsys):
    copy = tmp_path / "mine.dermbundle"
    shutil.copy(shipped()["dermoscopy"], copy)
    pictures = drawn(tmp_path)
    split = parts_of(pictures)
    one = recipe(f"start={copy}")
    first = loop.train(one, pictures, split, tmp_path / "run")
    copy.unlink()
    again = loop.train(one, pictures, split, tmp_path / "run")
    assert (again.start, again.licence) == (first.start, first.licence)
    with pytest.raises(UserError, match="there is no"):
        loop.train(one, pictures, split, tmp_path / "other")
    # As a teacher it has to mean the same by its answers.
    taught = recipe("start=", "distillation.teachers=dermoscopy")
    with pytest.raises(UserError, match="classes that are not learnt here"):
        loop.train(taught, pictures, split, tmp_path / "taught")


def test_a_bundle_that_lists_another_networks_pictures_does_not_say_what_this_one_knows(
    tiny_bundle, tmp_path, capsys
):
    tiny, one = open_bundle(tiny_bundle), of_names(("ISIC_0000001",))
    parts = {name: tiny.part(name) for name in tiny.manifest.parts}
    parts[FILE] = published([TrainingPictures(one, np.full(1, TRAIN << 4, np.uint8))])
    path = write_bundle(tmp_path / "of-the-classifier.dermbundle", tiny.manifest, parts)
    source = origins.origin(str(path))
    assert len(source.pictures("classifier").prints) == 1
    assert source.pictures("segmenter") is None
    # One that says so itself, as `export --with` writes it, is no better known.
    nothing = TrainingPictures(of_names(()), np.zeros(0, np.uint8), unknown=("that of old",))
    own = TrainingPictures.from_bytes(parts[FILE])
    path = write_bundle(path, tiny.manifest, {**parts, FILE: published([own, nothing])})
    pictures, main = drawn(tmp_path), SimpleNamespace(is_main_process=True)
    start = load_recipe("segmenter", [f"start={path}"])
    known, _ = check_leaks(start, pictures, parts_of(pictures), tmp_path / "out", main)
    assert known.unknown == ("that of old",)
    assert "has no list of this network's pictures: what it learnt" in capsys.readouterr().err


def test_a_bundle_that_knows_what_is_to_be_measured_is_refused(tmp_path):
    known = TrainingPictures.from_bytes(open_bundle("dermoscopy").part(FILE))
    learnt = sorted(known.of("classifier", 1).numbers.tolist())
    pictures = drawn(tmp_path)
    named = tuple(
        replace(record, id=f"ISIC_{number:07}")
        for record, number in zip(pictures.records, learnt, strict=False)
    )
    pictures = replace(pictures, records=named)
    with pytest.raises(UserError) as told:
        loop.train(recipe(), pictures, parts_of(pictures), tmp_path / "run")
    assert "dermoscopy was trained on ham10000" in str(told.value)
    assert "and knows what is to be measured" in str(told.value)
    assert "2 of 2 test pictures (2 by ISIC number" in str(told.value)
    assert not (tmp_path / "run").exists()


def test_a_run_of_the_same_name_is_no_riddle(tmp_path, monkeypatch):
    (tmp_path / "dermoscopy").mkdir()
    (tmp_path / "dermoscopy" / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"write \./dermoscopy for the run"):
        start_network(build_model("mobilenet_v2", LABELS), "dermoscopy", "classifier", LABELS)


@pytest.mark.slow
def test_from_skin_the_demos_classifier_beats_colour_statistics(tmp_path):
    """A third of the demo: two minutes on two cores, most of them to draw the pictures."""
    from benchmarks.accuracy.baselines import ColourClassifier, colour_features
    from dermedge.data import load, make_split
    from dermedge.data.synthetic import write_data_set
    from dermedge.evaluation import metrics
    from dermedge.image.read import read_image
    from train.data import load_pictures

    write_data_set(tmp_path / "data", 300)
    data_set = load("procedural", tmp_path / "data")
    split = make_split(data_set)
    demo = load_recipe("demo-classifier", ["workers=0"])
    run = loop.train(demo, data_set, split, tmp_path / "run")
    tested = split.select(data_set.records, "test")
    truth = np.array([run.labels.index(record.label) for record in tested])
    found = load_pictures(tested, demo, tmp_path / "cache")
    model = load_model(run)
    with torch.inference_mode():
        images = torch.from_numpy(np.stack([found.image(i) for i in range(len(found))]))
        network = torch.softmax(model(images), dim=1).numpy()
    learnt = split.select(data_set.records, "train")
    colours = ColourClassifier(
        [colour_features(read_image(record.image).pixels) for record in learnt],
        [record.label for record in learnt],
    )
    features = [colour_features(read_image(record.image).pixels) for record in tested]
    simple = colours.probabilities(np.stack(features), run.labels)
    ours, theirs = (metrics.macro_auc(found, truth) for found in (network, simple))
    print(f"macro AUC {ours:.3f}, colour statistics {theirs:.3f}")
    assert ours > theirs


def outlined(folder: Path) -> DataSet:
    """Drawn pictures, all but the last with a mask."""
    pictures = drawn(folder, count=10)
    mask = np.zeros((48, 64), np.uint8)
    mask[12:36, 16:48] = 255
    write_png(folder / "mask.png", mask)
    *some, last = pictures.records
    masked = (replace(record, mask=folder / "mask.png") for record in some)
    return replace(pictures, records=(*masked, last))


def outline_recipe(*more: str):
    tiny = ["batch_size=4", "max_steps=2", "workers=0", "ema=0"]
    return load_recipe("multitask-outline", [*tiny, *more])


def test_a_network_that_learns_outlines_alone_keeps_the_classes_of_its_start(tmp_path, capsys):
    pictures = outlined(tmp_path)
    # An outline without a class is one to choose by, too.
    first, *others = pictures.records
    pictures = replace(pictures, records=(replace(first, label=None, diagnosis=None), *others))
    ids = [record.id for record in pictures.records]
    split = Split("csv", 0, {"train": tuple(ids[2:]), "val": tuple(ids[:2]), "test": ()})
    run = loop.train(outline_recipe(), pictures, split, tmp_path / "run")
    said = capsys.readouterr().err
    assert "new: the decoder;" in said
    assert "1 of 8 training pictures have no mask" in said
    assert "validation pictures have no" not in said
    assert (run.pictures["val"], set(run.val)) == (2, {"jaccard", "balanced_accuracy"})
    assert "learns nothing of it" not in said  # none is learnt, and none should be
    start = open_bundle("dermoscopy")
    assert (run.labels, run.pictures["train"]) == (start.manifest.labels, 7)
    (theirs,) = (e for e in start.manifest.training_data if e["role"] == "classifier")
    assert run.prior == theirs["prior"]
    learnt, before = load_model(run), bundled_network(start, "classifier")
    image = torch.from_numpy(squares(range(3), 224))
    with torch.no_grad():
        assert torch.allclose(learnt(image)[1], before(image), atol=1e-3)
    # It begins at 0.
    assert learnt.net.decoder[1].attend[1].strength.abs() > 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("classes=mel,nv", 'set classes="akiec, bcc, bkl, df, mel, nv, vasc, scc"'),
        ("preprocessing.size=192", "set preprocessing.size=224"),
        ("preprocessing.color_constancy=true", "set preprocessing.color_constancy=false"),
        ("metadata=age", 'set metadata=""'),
    ],
)
def test_what_would_change_the_classes_that_are_kept_is_refused(tmp_path, more, said):
    pictures = outlined(tmp_path)
    with pytest.raises(UserError) as caught:
        loop.train(outline_recipe(more), pictures, parts_of(pictures), tmp_path / "run")
    assert str(caught.value).endswith(said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("labels", "crop", "said"),
    [((), 0.0, "which has none: start from a classifier"), (CLASSES, 1.5, "of whole pictures")],
)
def test_a_start_whose_classes_cannot_be_kept_is_refused(monkeypatch, labels, crop, said):
    recipe = outline_recipe(f"classes={','.join(CLASSES)}")
    network = SimpleNamespace(metadata=())
    source = SimpleNamespace(
        bundle=True,
        labels=lambda kind: labels,
        network=lambda kind: (network, labels),
        preprocessing=lambda kind: replace(recipe.preprocessing, crop=crop),
    )
    monkeypatch.setattr(origins, "origin", lambda path: source)
    with pytest.raises(UserError, match=said):
        origins.check_kept_classes(recipe, CLASSES)
