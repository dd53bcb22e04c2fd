"""Late layers that learn alone, on what the frozen ones made of each picture once."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import SHORT
from test_train import assert_same, checkpoint

from dermedge import UserError
from dermedge.data import load
from dermedge.data.split import make_split
from dermedge.image.read import write_png
from train import late, loop, teachers
from train.average import StartWeights
from train.data import Views, load_pictures
from train.late import feature_views
from train.learner import Learner
from train.models import build_model
from train.recipe import RecipeError, load_recipe
from train.run import load_model
from train.sources import Priors
from train.start import by_class, settle_norms, start_from

LABELS = ("mel", "nv")
TINY = [
    *("preprocessing.size=32", "batch_size=4", "checkpoint_every=3", "epochs=3", "workers=0"),
    *(f"model={SHORT[0]}", "pretrained=no", "metadata=age", "ema=0.9", "loss.balanced=1"),
]
FREEZE = 2
pytestmark = pytest.mark.usefixtures("short_networks")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    """Twenty small pictures, dark (mel) or light (nv); two of them photographs."""
    root = tmp_path_factory.mktemp("late")
    rng = np.random.default_rng(0)
    with open(root / "data.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "diagnosis", "lesion_id", "age"])
        for number in range(20):
            label = LABELS[number % 2]
            image = np.full((36, 48, 3), (225, 180, 160), np.uint8)
            image[8:28, 10:38] = (60, 40, 40) if label == "mel" else (150, 100, 80)
            image[rng.integers(36, size=40), rng.integers(48, size=40)] = 20
            write_png(root / f"p{number:02}.png", image)
            writer.writerow(
                [f"p{number:02}", f"p{number:02}.png", label, f"L{number}", 20 + number]
            )
    found = load("csv", root)
    kinds = ("clinical",) * 2 + ("dermoscopic",) * 17 + (None,)
    records = [replace(r, modality=kind) for r, kind in zip(found.records, kinds, strict=True)]
    return replace(found, records=tuple(records))


@pytest.fixture(scope="module")
def split(data_set):
    return make_split(data_set, fractions=(0.8, 0.2, 0.0))


@pytest.fixture(scope="module")
def start(data_set, split, tmp_path_factory) -> Path:
    """A run of all layers to start and to learn from."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("starts") / "start"
    loop.train(load_recipe("classifier", [*TINY, "epochs=1"]), data_set, split, out)
    return out


def frozen(start: Path, *overrides: str):
    more = (f"start={start}", f"distillation.teachers={start}", f"freeze={FREEZE}", "views=2")
    return load_recipe("classifier", [*TINY, *more, *overrides])


@pytest.fixture(scope="module")
def trained(data_set, split, start, tmp_path_factory) -> Path:
    """A folder with a run of frozen layers and its cache; to write there, take a copy."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    loop.train(frozen(start), data_set, split, folder / "run")
    return folder


def test_frozen_layers_stay_and_late_ones_learn(split, start, trained):
    run = loop.load_run(trained / "run")
    before, after = load_model(loop.load_run(start)).state_dict(), load_model(run).state_dict()
    first = {f"net.trunk.{block}." for block in range(FREEZE)}
    for name, value in before.items():
        early = any(name.startswith(prefix) for prefix in first)
        if early or (name.startswith("net.trunk.3.") and name.endswith("weight")):
            assert torch.equal(value, after[name]) == early, name
    assert run.steps == 3 * (len(split.parts["train"]) // 4)


def test_kept_features_say_what_the_pictures_do(data_set, split, start, tmp_path):
    recipe = frozen(start)
    records = split.select(data_set.records, "train")
    pictures = load_pictures(records, recipe, tmp_path / "cache")
    learner = Learner(recipe, LABELS, pictures, 10, loop.make_accelerator(recipe))
    views = Views(pictures, LABELS, recipe, learner.batch_priors())
    kept = feature_views(learner, pictures, LABELS, learner.batch_priors(), tmp_path / "cache")
    model = learner.model.eval()
    for epoch, index in [(0, 0), (1, 5), (2, 3), (3, 3)]:
        seen, short = views[epoch % 2, index], kept[epoch, index]
        for name in ("classes", "metadata", "prior"):
            assert np.array_equal(seen[name], short[name])
        whole, rest = ({k: torch.from_numpy(v)[None] for k, v in s.items()} for s in (seen, short))
        with torch.no_grad():
            given = (rest["features"].float(), rest["metadata"], FREEZE)
            assert torch.allclose(
                model(whole["image"], whole["metadata"]), model(*given), atol=2e-3
            )
            (wanted,), (taught,) = learner.taught(whole), learner.taught(rest)
        assert torch.allclose(wanted, taught, atol=1e-4)
    assert not np.array_equal(kept[0, 3]["features"], kept[1, 3]["features"])
    assert np.array_equal(kept[0, 3]["features"], kept[2, 3]["features"])


def test_features_are_of_what_was_said_and_drawn(data_set, split, start, tmp_path):
    recipe = frozen(start)
    pictures = load_pictures(split.select(data_set.records, "train"), recipe, tmp_path / "cache")
    learner = Learner(recipe, LABELS, pictures, 10, loop.make_accelerator(recipe))

    def key(**changed) -> str:
        first, *others = pictures.records
        other = replace(pictures, records=(replace(first, **changed), *others))
        return late._key(learner, Views(other, LABELS, recipe))

    mask = pictures.records[1].image
    assert key() == key(mask=mask) != key(age=99.0)  # the teachers hear it
    learner.recipe = replace(recipe, preprocessing=replace(recipe.preprocessing, crop=1.5))
    assert key() != key(mask=mask)


def test_a_share_of_the_start_is_kept(data_set, split, start, tmp_path):
    """In the saved weights alone: the next steps learn from the run's own."""
    spec = ("epochs=1", "loss.class_balance=0.5")
    runs = {
        share: loop.train(
            frozen(start, *spec, f"keep_start={share}"), data_set, split, tmp_path / share / "run"
        )
        for share in ("0", "0.25")
    }
    own, mixed = (load_model(run).state_dict() for run in runs.values())
    before = load_model(loop.load_run(start)).state_dict()
    held, carried = loop.load_run(start).prior, runs["0.25"].prior
    assert carried == runs["0"].prior
    before["net.head.layers.1.bias"] += torch.tensor(
        [np.log(carried[label] / held[label]) for label in LABELS]
    )
    moved = 0
    for name, value in own.items():
        if value.is_floating_point():
            assert torch.allclose(mixed[name], 0.75 * value + 0.25 * before[name], atol=1e-5), name
            moved += not torch.equal(mixed[name], value)
    assert moved > 20
    same = [checkpoint(run.folder) for run in runs.values()]
    assert_same(*({name: part[name] for name in ("model", "average")} for part in same))


def test_what_the_start_does_not_have_is_the_runs_alone():
    def network(seed: int, labels: tuple[str, ...]):
        torch.manual_seed(seed)
        return build_model("mobilenet_v2", labels)

    labels, old = ("bcc", "mel", "nv"), ("mel", "nv")
    model, start = network(0, labels), network(1, old).state_dict()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_from(model, by_class(before, start, labels, old))
    kept = StartWeights(model, before, 0.5)
    trained = network(2, labels)
    mixed = kept.blended(trained).state_dict()
    for leaf in ("weight", "bias"):
        name = f"net.head.layers.1.{leaf}"
        assert torch.equal(mixed[name][0], trained.state_dict()[name][0])
        assert torch.allclose(mixed[name][1:], (trained.state_dict()[name][1:] + start[name]) / 2)


@pytest.mark.parametrize("outlines", [True, False])
def test_a_segmenter_keeps_a_share_of_a_start_and_its_own_decoder_where_that_has_none(outlines):
    torch.manual_seed(0)
    model, start = (build_model("mobilegan-nano", ()) for _ in range(2))
    theirs = start.state_dict()
    if not outlines:
        theirs = {k: v for k, v in theirs.items() if not k.startswith("net.decoder.")}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    own = start_from(model, theirs)
    trained = build_model("mobilegan-nano", ())
    settle_norms(model, [torch.randint(0, 255, (2, 32, 32, 3), dtype=torch.uint8)])
    mixed = StartWeights(model, before, 0.5, own).blended(trained).state_dict()
    for name, value in trained.state_dict().items():
        if value.is_floating_point():
            alone = name.startswith("net.decoder.") and not outlines
            half = value if alone else (value + model.state_dict()[name]) / 2
            assert torch.allclose(mixed[name], half), name


def test_a_class_that_was_never_drawn_is_not_moved_above_or_below_the_others(monkeypatch):
    """Only a source of weight 0 shows it: the prior that the run notes is 0."""
    stated = {"bcc": 0.0, "df": 0.1, "mel": 0.2, "nv": 0.7}
    source = SimpleNamespace(run=True, labels=lambda kind: tuple(stated), prior=stated)
    monkeypatch.setattr(teachers, "origin", lambda path: source)
    here = np.array([0.2, 1e-12, 0.4, 0.4], np.float32)
    moved = teachers.moved_by(
        "x", load_recipe("classifier"), tuple(stated), Priors(here, {}), print
    )
    assert moved == pytest.approx({"bcc": 0, "df": 0, "mel": np.log(2), "nv": np.log(4 / 7)})


def test_a_teacher_of_fewer_blocks_than_are_frozen_sees_the_pictures():
    model, other = (
        build_model(name, LABELS).eval() for name in ("mobilenet_v2", "mobilenet_v3_small")
    )
    teacher = teachers.Teacher(other, [0, 1], np.zeros(2))
    learner = SimpleNamespace(
        recipe=SimpleNamespace(freeze=14),
        model=model,
        accelerator=SimpleNamespace(unwrap_model=lambda network: network),
        teachers=[teacher],
    )
    image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    with torch.no_grad():
        _, answers = late._Early(learner, image)({"image": image})
        assert torch.equal(answers[:, 0], teacher(image))


def small_chunks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(late, "_CHUNK", 4)
    patch.setattr(late, "_MARK", 8)


@pytest.fixture(scope="module")
def whole(data_set, split, start, tmp_path_factory) -> Path:
    """A run that nobody stopped."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        small_chunks(patch)
        loop.train(frozen(start, "keep_start=0.25"), data_set, split, out)
    return out


@pytest.mark.parametrize("where", ["features", "training"])
def test_a_stopped_run_goes_on_exactly(data_set, split, start, whole, tmp_path, monkeypatch, where):
    small_chunks(monkeypatch)
    recipe = frozen(start, "keep_start=0.25")
    owner, name, last = {
        "features": (late._Early, "__call__", 6),
        "training": (Learner, "update", 5),
    }[where]
    real, calls = getattr(owner, name), []

    def dying(self, *given):
        calls.append(1)
        if len(calls) == last:
            raise KeyboardInterrupt
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(KeyboardInterrupt):
            loop.train(recipe, data_set, split, tmp_path / "torn" / "run")
    (cache,) = (tmp_path / "torn" / "cache").glob("late-*")
    done = np.fromfile(cache / "done.uint8", np.uint8)
    assert done.all() == (where == "training")
    assert done.any()
    loop.train(recipe, data_set, split, tmp_path / "torn" / "run")
    assert_same(checkpoint(whole), checkpoint(tmp_path / "torn" / "run"))


def test_features_serve_the_next_run_unless_it_sees_other_views(
    data_set, split, start, trained, tmp_path, monkeypatch
):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    passes = []
    real = late._Early.__call__
    monkeypatch.setattr(late._Early, "__call__", lambda *g: passes.append(1) or real(*g))
    # A finished run that is given again computes nothing.
    loop.train(frozen(start), data_set, split, tmp_path / "run")
    assert not passes
    # One pass finds out the shapes.
    loop.train(frozen(start, "epochs=1", "optimizer.lr=1e-4"), data_set, split, tmp_path / "two")
    assert len(passes) == 1
    loop.train(frozen(start, "epochs=1", "metadata_dropout=0"), data_set, split, tmp_path / "three")
    assert len(passes) > 2


def test_only_pictures_of_the_kind_and_the_classes_that_are_wanted(data_set, split):
    recipe = load_recipe("classifier", [*TINY, "modality=dermoscopic", "classes=nv, mel"])
    labels, chosen = loop._choose(recipe, data_set, split)
    assert labels == LABELS
    kept = [record for records in chosen.values() for record in records]
    assert len(kept) == 18  # what states no kind is kept
    assert {record.modality for record in kept} == {"dermoscopic", None}
    one = replace(recipe, classes="mel")
    with pytest.raises(UserError, match="only mel"):
        loop._choose(one, data_set, split)
    none = replace(data_set, records=tuple(r for r in data_set.records if r.modality == "clinical"))
    with pytest.raises(UserError, match="no dermoscopic picture"):
        loop._choose(recipe, none, make_split(none, fractions=(1.0, 0.0, 0.0)))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["keep_start=0.2"], "or a segmenter's start"),
        (["freeze=3"], "has a start"),
        (["views=2"], "set freeze, too"),
        (["freeze=3", "views=2", "start=x", "augmentation.mixup=0.2"], "leave one out"),
        (["freeze=3", "views=2", "start=x", "augment_on=device"], "augmented by the loader"),
        (["classes=mel,wart"], "got wart"),
        (["modality=x-ray"], "modality must be one of"),
    ],
)
def test_what_cannot_be_is_refused(overrides, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe("classifier", [*TINY, *overrides])


def test_one_block_at_least_has_to_learn(data_set, split, start, tmp_path):
    with pytest.raises(UserError, match=r"freeze = 5: .* 5 blocks, and one at least"):
        loop.train(frozen(start, "freeze=5"), data_set, split, tmp_path / "run")


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_lite0", "mobilenet_v4_conv_small"])
def test_early_and_late_layers_are_the_whole_network(name):
    model = build_model(name, LABELS).eval()
    image = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8))
    with torch.no_grad():
        assert torch.allclose(model(image), model(model.early(image, 6), None, 6), atol=1e-6)
