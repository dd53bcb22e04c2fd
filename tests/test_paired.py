"""A network for dermoscopic pictures teaches one for photographs by the lesion's other picture."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import SHORT
from test_train import assert_same, checkpoint

from dermedge import UserError
from dermedge.bundle.bundle import open_bundle
from dermedge.data import load
from dermedge.data.leak import EARLIER, FILE, LEARNT, TrainingPictures
from dermedge.data.split import Split
from dermedge.image.read import write_png
from dermedge.metadata import encode
from export.bundle.assemble import _training_data
from export.runs.load import TrainedNetwork
from train import loop, paired
from train.data import Views, load_pictures, loader
from train.feed import training_batches
from train.learner import Learner
from train.losses import paired_loss
from train.paired import paired_answers, partners
from train.prepare import read_prepared
from train.recipe import RecipeError, load_recipe
from train.run import load_model, load_run
from train.sources import Priors

LABELS = ("akiec", "mel", "nv")
COLOURS = {"akiec": (190, 90, 80), "mel": (60, 40, 40), "nv": (150, 100, 80), "bkl": (120, 90, 40)}
TINY = [
    *("preprocessing.size=32", "batch_size=4", "checkpoint_every=2", "epochs=2", "workers=0"),
    *(f"model={SHORT[0]}", "pretrained=no", "loss.balanced=1"),
]
pytestmark = pytest.mark.usefixtures("short_networks")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    """Lesions L0 to L11, each by both modalities, and photographs P0 to P3 that are alone.

    Of bkl there are dermoscopic pictures without a photograph alone.
    """
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    shown = [
        (f"L{number}{kind[0]}", f"L{number}", ("mel", "nv")[number % 2], kind)
        for number in range(12)
        for kind in ("clinical", "dermoscopic")
    ]
    shown += [(f"P{n}", f"P{n}", LABELS[n % 3], "clinical") for n in range(4)]
    shown += [(f"B{n}", f"B{n}", "bkl", "dermoscopic") for n in range(2)]
    with open(root / "data.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "diagnosis", "lesion_id", "age", "sex"])
        for name, lesion, label, _ in shown:
            image = np.full((36, 48, 3), (225, 180, 160), np.uint8)
            image[8:28, 10:38] = COLOURS[label]
            image[rng.integers(36, size=60), rng.integers(48, size=60)] = 20
            write_png(root / f"{name}.png", image)
            writer.writerow([name, f"{name}.png", label, lesion, 30 + len(name), "female"])
    found = load("csv", root)
    kinds = {name: kind for name, _, _, kind in shown}
    records = tuple(replace(r, modality=kinds[r.id]) for r in found.records)
    return replace(found, records=records)


@pytest.fixture(scope="module")
def split(data_set):
    """L0 and L1 are for validation."""
    parts = {"train": [], "val": [], "test": []}
    for record in data_set.records:
        parts["val" if record.lesion_id in ("L0", "L1") else "train"].append(record.id)
    return Split(data_set.name, 0, {part: tuple(sorted(ids)) for part, ids in parts.items()})


@pytest.fixture(scope="module")
def teacher(data_set, split, tmp_path_factory) -> Path:
    """For dermoscopic pictures: another size, other metadata, and one class more and one less."""
    torch.set_num_threads(1)
    options = ("preprocessing.size=64", "metadata=age,sex", "modality=dermoscopic", "max_steps=2")
    out = tmp_path_factory.mktemp("teachers") / "derm"
    assert loop.train(
        load_recipe("classifier", [*TINY, *options]), data_set, split, out
    ).labels == ("bkl", "mel", "nv")
    return out


@pytest.fixture(scope="module")
def start(data_set, split, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("starts") / "photographs"
    loop.train(
        load_recipe("classifier", [*TINY, "modality=clinical", "max_steps=1"]), data_set, split, out
    )
    return out


def student(teacher: Path, *overrides: str):
    return load_recipe(
        "classifier",
        [*TINY, "modality=clinical", f"distillation.paired={teacher}", *overrides],
    )


def asked(recipe, data_set, split, folder):
    """Training pictures, learner and answers of a run."""
    labels, chosen = loop._choose(recipe, data_set, split)
    assert labels == LABELS
    pictures = load_pictures(chosen["train"], recipe, folder)
    accelerator = loop.make_accelerator(recipe)
    learner = Learner(recipe, labels, pictures, 10, accelerator)
    others = partners(pictures.records, data_set, split, recipe.modality)
    answers = paired_answers(
        recipe, labels, pictures.records, others, learner.priors, folder, accelerator
    )
    return pictures, learner, answers


def test_the_answer_is_the_one_for_the_other_picture(data_set, split, teacher, tmp_path, capsys):
    recipe = student(teacher)
    _, learner, answers = asked(recipe, data_set, split, tmp_path)
    assert "10 of 14 training pictures have a dermoscopic picture" in capsys.readouterr().err
    by_id = {record.id: record for record in data_set.records}
    run, model = load_run(teacher), load_model(load_run(teacher))
    known = ("mel", "nv")  # by both
    own = dict(zip(LABELS, learner.priors.carried(1.0), strict=True))
    move = torch.tensor([np.log(own[label] / run.prior[label]) for label in known]).float()
    for name in ("L2c", "L7c"):
        other = by_id[name.replace("c", "d")]
        square = read_prepared(other, run.preprocessing, False)[0]
        sides = [np.rot90(s, k) for s in (square, square[:, ::-1]) for k in range(4)]
        metadata = encode(run.metadata, age=other.age, sex=other.sex)[None].repeat(8, 0)
        with torch.no_grad():
            each = model(torch.from_numpy(np.stack(sides)), torch.from_numpy(metadata)).softmax(1)
        logits = each.mean(0).log()[[run.labels.index(label) for label in known]] + move
        wanted = torch.softmax(logits / recipe.distillation.temperature, 0).numpy()
        assert np.isnan(answers[name][0])  # akiec, which the teacher does not know
        assert answers[name][1:] == pytest.approx(wanted, abs=1e-5)
    assert all(np.isnan(answers[f"P{number}"]).all() for number in range(4))


def test_several_other_pictures_of_a_lesion_are_averaged(data_set, split, teacher, tmp_path):
    recipe = student(teacher)
    pictures, learner, alone = asked(recipe, data_set, split, tmp_path)
    by_id = {record.id: record for record in data_set.records}
    both = {"L2c": [by_id["L2d"], by_id["L3d"]], "L4c": [by_id["L2d"]], "L5c": [by_id["L3d"]]}
    # With a temperature of 1 and its own prior, a mean of probabilities stays one.
    plain = replace(recipe, distillation=replace(recipe.distillation, temperature=1.0))
    prior = np.array([0.0, *(load_run(teacher).prior[k] for k in ("mel", "nv"))], np.float32)
    answers = paired_answers(
        replace(plain, loss=replace(plain.loss, balanced=0.0)),
        LABELS,
        pictures.records,
        both,
        Priors(prior, {}),
        tmp_path,
        learner.accelerator,
    )
    low, high = sorted(answers[name][1] for name in ("L4c", "L5c"))
    assert low <= answers["L2c"][1] <= high
    assert not np.array_equal(alone["L2c"], answers["L2c"])


def test_a_picture_without_an_answer_loses_nothing_by_it():
    torch.manual_seed(0)
    logits = torch.randn(3, 3).requires_grad_()
    wanted = torch.tensor([[torch.nan] * 3, [torch.nan, 0.25, 0.75], [torch.nan, 1.0, 0.0]])
    loss = paired_loss(logits, wanted, 2.0)
    loss.backward()
    rows = F.log_softmax(logits.detach()[1:, 1:] / 2, dim=1)
    expected = F.kl_div(rows, wanted[1:, 1:], reduction="sum") * 4 / 3
    torch.testing.assert_close(loss.detach(), expected)
    assert torch.equal(logits.grad[0], torch.zeros(3))
    assert torch.equal(logits.grad[:, 0], torch.zeros(3))
    assert logits.grad[1:, 1:].abs().min() > 0


@pytest.mark.parametrize("own", [False, True], ids=["paired alone", "with a teacher of its own"])
def test_each_picture_weighs_as_much_with_an_answer_as_without(
    data_set, split, teacher, start, tmp_path, own
):
    weights = ("distillation.paired_weight=0.4", "distillation.weight=0.2", "loss.class_balance=0")
    more = (f"distillation.teachers={start}",) if own else ()
    recipe = student(teacher, *weights, *more)
    pictures, _, answers = asked(recipe, data_set, split, tmp_path)
    names = [record.id for record in pictures.records]

    def losses(name: str, recipe, answers) -> dict[str, float]:
        learner = Learner(recipe, LABELS, pictures, 10, loop.make_accelerator(recipe))
        views = Views(pictures, LABELS, recipe, None, answers)
        (batch,) = loader(views, [[(0, names.index(name))] * 2], 0)
        return {key: value.item() for key, value in learner.update(batch).items()}

    plain = replace(recipe, distillation=replace(recipe.distillation, teachers="", paired=""))
    for name, share in (("L2c", 0.4), ("P1", 0.0)):
        found = losses(name, recipe, answers)
        left = 1 - share - (0.2 if own else 0.0)
        whole = losses(name, plain, None)["cross_entropy"]
        assert found["cross_entropy"] == pytest.approx(left * whole, rel=1e-4)
        assert (found["paired"] > 0) == (share > 0)
        assert ("distillation" in found) == own


def test_every_feed_tells_the_same_answers(data_set, split, teacher, start, tmp_path):
    recipe = student(teacher, f"start={start}", "freeze=4", "views=1")
    pictures, learner, answers = asked(recipe, data_set, split, tmp_path)
    steps = [[(0, index) for index in range(8)]]
    device = torch.device("cpu")
    batches = [
        next(
            iter(
                training_batches(
                    pictures, LABELS, replace(recipe, augment_on=w), steps, device, None, answers
                )
            )
        )
        for w in ("loader", "device")
    ]
    kept = loop.feature_views(learner, pictures, LABELS, None, tmp_path, answers)
    batches.append(next(iter(loader(kept, steps, 0))))
    wanted = np.stack([answers[record.id] for record in pictures.records[:8]])
    for batch in batches:
        np.testing.assert_array_equal(batch["paired"].numpy(), wanted)


@pytest.mark.parametrize("views", [0, 2])
def test_a_stopped_run_goes_on_exactly(
    data_set, split, teacher, start, tmp_path, monkeypatch, views
):
    monkeypatch.setattr(paired, "_CHUNK", 3)
    recipe = student(teacher, f"start={start}", "freeze=4", f"views={views}", "ema=0.9")
    loop.train(recipe, data_set, split, tmp_path / "whole" / "run")
    with open(tmp_path / "whole" / "run" / "log.csv") as file:
        assert all(float(row["paired"]) > 0 for row in csv.DictReader(file))
    torn = tmp_path / "torn" / "run"
    passes = []
    for owner, name, last in [(paired, "_asked", 2), (Learner, "update", 4)]:
        real = getattr(owner, name)

        def dying(*given, real=real, last=last):
            passes.append(1)
            if len(passes) == last:
                raise KeyboardInterrupt
            return real(*given)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, dying)
            with pytest.raises(KeyboardInterrupt):
                loop.train(recipe, data_set, split, torn)
        passes.clear()
    real = paired._asked
    monkeypatch.setattr(paired, "_asked", lambda *given: passes.append(1) or real(*given))
    loop.train(recipe, data_set, split, torn)
    assert not passes  # they are kept, for other runs, too
    assert_same(checkpoint(tmp_path / "whole" / "run"), checkpoint(torn))


def test_a_picture_that_cannot_be_read_answers_nothing(data_set, split, teacher, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    records = tuple(replace(r, image=broken) if r.id == "L2d" else r for r in data_set.records)
    pictures, learner, answers = asked(
        student(teacher), replace(data_set, records=records), split, tmp_path / "cache"
    )
    printed = capsys.readouterr().err
    assert "left out L2d" in printed
    assert "9 of 14 training pictures" in printed
    assert np.isnan(answers["L2c"]).all()
    others = {"L2c": [replace(data_set.records[0], id="L2d", image=broken)]}
    with pytest.raises(UserError, match=r"no dermoscopic picture of a lesion .* can be read"):
        paired_answers(
            learner.recipe,
            LABELS,
            pictures.records,
            others,
            learner.priors,
            tmp_path / "cache",
            learner.accelerator,
        )


def test_who_has_no_partner_and_who_is_torn_from_it(data_set, split, teacher, tmp_path):
    photographs = tuple(r for r in data_set.records if r.modality == "clinical")
    ids = {record.id for record in photographs}
    alone = Split(
        split.data_set, 0, {k: tuple(i for i in v if i in ids) for k, v in split.parts.items()}
    )
    out = tmp_path / "run"
    with pytest.raises(UserError, match="no clinical training picture of csv has a dermoscopic"):
        loop.train(student(teacher), replace(data_set, records=photographs), alone, out)
    parts = {
        "train": tuple(i for i in split.parts["train"] if i != "L5d"),
        "val": tuple(sorted([*split.parts["val"], "L5d"])),
        "test": (),
    }
    with pytest.raises(UserError, match=r"parts pictures of one lesion \(first: L5c ~ L5d\)"):
        loop.train(student(teacher), data_set, Split(split.data_set, 0, parts), out)
    assert not out.exists()


def test_a_bundle_teaches_its_classes_and_its_licence_binds(data_set, split, tmp_path):
    recipe = student("dermoscopy", "max_steps=1")
    run = loop.train(recipe, data_set, split, tmp_path / "run")
    made = _training_data(TrainedNetwork(run, recipe, split, data_set, load_model(run), "full"))
    assert made["teachers"] == ["dermoscopy"]
    assert "CC BY-NC 4.0" in run.licence
    listed = TrainingPictures.from_bytes((run.folder / FILE).read_bytes())
    known = TrainingPictures.from_bytes(open_bundle("dermoscopy").part(FILE))
    assert len(listed.of("classifier", EARLIER)) == len(known.of("classifier", LEARNT))


def test_a_network_that_sees_cropped_lesions_is_refused(data_set, split, tmp_path):
    options = ("modality=dermoscopic", "max_steps=1", "preprocessing.crop=1.5")
    cropped = tmp_path / "cropped"
    mask = np.zeros((36, 48), np.uint8)
    mask[8:28, 10:38] = 255
    write_png(tmp_path / "mask.png", mask)
    drawn = tuple(replace(r, mask=tmp_path / "mask.png") for r in data_set.records)
    recipe = load_recipe("classifier", [*TINY, *options])
    loop.train(recipe, replace(data_set, records=drawn), split, cropped)
    with pytest.raises(UserError, match=r"take a network with preprocessing\.crop = 0"):
        asked(student(cropped), data_set, split, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["modality="], "needs a classifier and modality"),
        (["augmentation.cutmix=0.2"], "mix two lesions"),
        (["distillation.paired_weight=0"], "must be above 0"),
        (["distillation.teachers=x", "distillation.weight=0.8"], "at most 1 - weight"),
    ],
)
def test_what_cannot_be_is_refused(overrides, words):
    with pytest.raises(RecipeError, match=words):
        student(Path("x"), *overrides)
