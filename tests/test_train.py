"""Training: the picture cache, samples, exact resumption, several processes, the command."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from networks import SHORT

from dermedge import Analyzer, UserError, __version__, cli, open_bundle
from dermedge.data import DataSet, Record, Split, load, make_split
from dermedge.data.joint import join, keyed
from dermedge.data.leak import EARLIER, FILE, TRAIN, TrainingPictures
from dermedge.image.preprocess import prepare
from dermedge.image.read import read_image, read_mask, write_png
from dermedge.metadata import encode
from dermedge.network import drive
from train import cropped, data, leaks, loop
from train.commands import _frozen
from train.data import Batches, Pictures, Views, load_pictures, loader, subset
from train.feed import training_batches
from train.leaks import check_leaks
from train.learner import Learner
from train.loop import make_accelerator
from train.models import Normalized
from train.recipe import Augmentation, RecipeError, load_recipe, to_toml
from train.run import Log, load_model, load_run, make_folder
from train.sources import sampling_shares

TINY = ["preprocessing.size=32", "batch_size=4", "checkpoint_every=3", "epochs=2", "workers=0"]
SEGMENTER = [*TINY, "model=mobilegan-nano", "ema=0.9", "loss.adversarial=0.05"]
CLASSIFIER = [*TINY, f"model={SHORT[0]}", "pretrained=no"]
pytestmark = pytest.mark.usefixtures("short_networks")

STILL = Augmentation(flip=False, rotation=0, scale=0, shift=0, color=0, blur=0)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory) -> DataSet:
    """Twenty small pictures of dark (mel) or light (nv) ellipses, two of each lesion."""
    root = tmp_path_factory.mktemp("lesions")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(20):
        label = ("mel", "nv")[number % 4 // 2]
        image = np.full((36, 48, 3), (225, 180, 160), np.uint8)
        mask = np.zeros((36, 48), np.uint8)
        center = (int(rng.integers(18, 30)), int(rng.integers(14, 22)))
        axes = (int(rng.integers(6, 12)), int(rng.integers(6, 12)))
        cv2.ellipse(mask, center, axes, 20, 0, 360, 255, -1)
        image[mask > 0] = (60, 40, 40) if label == "mel" else (150, 100, 80)
        write_png(root / f"p{number:02}.png", image)
        write_png(root / f"p{number:02}_mask.png", mask)
        rows.append(
            {
                "id": f"p{number:02}",
                "image": f"p{number:02}.png",
                "mask": f"p{number:02}_mask.png",
                "diagnosis": label,
                "lesion_id": f"L{number // 2}",
                "age": str(20 + number),
                "site": "back",
            }
        )
    with open(root / "data.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return load("csv", root)


@pytest.fixture(scope="module")
def split(data_set):
    return make_split(data_set, fractions=(0.8, 0.2, 0.0))


@pytest.fixture(autouse=True)
def one_thread():
    # Tests run side by side; and sums must have one order wherever they run.
    torch.set_num_threads(1)


def segmenter(*overrides: str):
    return load_recipe("segmenter", [*SEGMENTER, *overrides])


def classifier(*overrides: str):
    return load_recipe("classifier", [*CLASSIFIER, *overrides])


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def assert_same(one, other, where="checkpoint"):
    """Equal to the last bit, through dicts and lists."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{where}[{index}]")
    else:
        assert one == other, where


# --- the cache ---------------------------------------------------------------------------------


def test_cached_pictures_are_what_the_device_would_prepare(data_set, tmp_path):
    recipe = segmenter("preprocessing.color_constancy=true")
    pictures = load_pictures(data_set.records, recipe, tmp_path)
    assert len(pictures) == 20
    for index, record in enumerate(pictures.records):
        image, placement = prepare(read_image(record.image).pixels, recipe.preprocessing)
        assert np.array_equal(pictures.image(index), image)
        mask = placement.place_mask(read_mask(record.mask))
        assert np.array_equal(pictures.mask(index) > 0, mask)


def test_a_crop_is_around_the_drawn_lesion(data_set, tmp_path):
    recipe = classifier("preprocessing.crop=1.5")
    masked, bare = data_set.records[0], replace(data_set.records[1], mask=None)
    pictures = load_pictures((masked, bare), recipe, tmp_path)
    assert pictures.masks is None
    drawn = read_mask(masked.mask)
    box = cv2.boundingRect(drawn.astype(np.uint8))
    near, placement = prepare(read_image(masked.image).pixels, recipe.preprocessing, box)
    assert np.array_equal(pictures.image(0), near)
    assert placement.width < 48
    assert max(placement.width, placement.height) == round(1.5 * max(box[2:]))
    # Where nobody drew the lesion, the whole picture is seen.
    whole, _ = prepare(read_image(bare.image).pixels, recipe.preprocessing)
    assert np.array_equal(pictures.image(1), whole)
    # A mask that is drawn again is another crop.
    moved = tmp_path / "moved.png"
    write_png(moved, np.roll(drawn.astype(np.uint8) * 255, 8, axis=1))
    again = load_pictures((replace(masked, mask=moved), bare), recipe, tmp_path)
    assert not np.array_equal(again.image(0), near)


def test_a_crop_is_where_the_segmenter_of_a_bundle_finds_the_lesion(
    data_set, make_bundle, split, tmp_path, monkeypatch
):
    """As the device crops it: without a mask, and whatever somebody drew."""
    path = make_bundle(crop=2.0)
    bundle = open_bundle(path)
    recipe = classifier("preprocessing.crop=2", "preprocessing.size=64", f"crop_by={path}")
    bare = tuple(replace(record, mask=None) for record in data_set.records)
    seen = []

    def watch(inference):
        seen.append(inference.feeds["image"][0])
        return inference.run()

    pictures = load_pictures(bare, recipe, tmp_path / "cache")
    assert len(pictures) == 20
    for index, record in enumerate(pictures.records):
        analyzer = Analyzer(bundle)
        drive(analyzer.steps(record.image), watch)
        assert np.array_equal(pictures.image(index), seen[-1])
    again = load_pictures(data_set.records, recipe, tmp_path / "cache")
    assert np.array_equal(again.images, pictures.images)
    # Nothing is said of masks, of which it needs none, and the run states whose crops it saw.
    other = replace(data_set, records=bare)
    assert not list(loop._unused(recipe, other, split, *loop._choose(recipe, other, split)))
    run = loop.train(replace(recipe, max_steps=1), other, split, tmp_path / "run")
    assert run.teachers == {str(path): bundle.sha256}
    alone = replace(bundle.manifest, models={"classifier": bundle.manifest.models["classifier"]})
    with monkeypatch.context() as patch:
        patch.setattr(cropped, "open_bundle", lambda _: replace(bundle, manifest=alone))
        with pytest.raises(UserError, match=r"has no segmenter .*: set another crop_by"):
            load_pictures(bare, recipe, tmp_path / "cache")
    with pytest.raises(UserError, match=r"one network of multitask plays both roles, .*: set"):
        load_pictures(bare, replace(recipe, crop_by="multitask"), tmp_path / "cache")
    # Another segmenter under that name would crop elsewhere.
    replace(run, finished=False).save()
    make_bundle(crop=1.5)
    with pytest.raises(UserError, match=r"explaining.dermbundle is another network than the one"):
        loop.train(replace(recipe, max_steps=1), other, split, tmp_path / "run")
    # A finished run needs none to note where its pictures are.
    run.save()
    path.unlink()
    assert loop.train(replace(recipe, max_steps=1), other, split, tmp_path / "run") == run


def test_the_cache_reads_each_picture_once_even_when_stopped(data_set, tmp_path, monkeypatch):
    read, original = [], data._read

    def watched(record, *rest):
        if record.id == stop_at:
            raise KeyboardInterrupt
        read.append(record.id)
        return original(record, *rest)

    monkeypatch.setattr(data, "_CHUNK", 4)
    monkeypatch.setattr(data, "_read", watched)
    stop_at = "p09"
    with pytest.raises(KeyboardInterrupt):
        load_pictures(data_set.records, segmenter(), tmp_path)
    stop_at = None
    read.clear()
    stopped = load_pictures(data_set.records, segmenter(), tmp_path)
    # Whole chunks are kept: p00 to p07.
    assert sorted(read) == [f"p{number:02}" for number in range(8, 20)]
    read.clear()
    again = load_pictures(data_set.records, segmenter(), tmp_path)
    assert not read
    whole = load_pictures(data_set.records, segmenter(), tmp_path / "other")
    for one in (stopped, again):
        assert np.array_equal(one.images, whole.images)
        assert np.array_equal(one.masks, whole.masks)


def test_pictures_that_cannot_be_used_are_left_out_and_named(data_set, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    write_png(tmp_path / "tall.png", np.zeros((60, 20), np.uint8))
    records = [
        data_set.records[0],
        replace(data_set.records[1], id="broken", image=tmp_path / "broken.jpg"),
        replace(data_set.records[2], id="tall", mask=tmp_path / "tall.png"),
        data_set.records[3],
    ]
    for _ in range(2):
        pictures = load_pictures(records, segmenter(), tmp_path / "cache")
        assert [record.id for record in pictures.records] == ["p00", "p03"]
        assert [line.split(":")[0] for line in pictures.problems] == ["broken", "tall"]
        expected, _ = prepare(
            read_image(data_set.records[3].image).pixels, segmenter().preprocessing
        )
        assert np.array_equal(pictures.image(1), expected)


def test_a_picture_that_failed_once_is_tried_again(data_set, tmp_path, monkeypatch):
    original = data._read

    def away(record, *rest):
        if record.id in ("p03", "p05"):
            raise OSError(f"stale file handle of {record.id}")
        return original(record, *rest)

    monkeypatch.setattr(data, "_read", away)
    assert len(load_pictures(data_set.records, segmenter(), tmp_path)) == 18
    monkeypatch.undo()
    # The other processes of a training must see what the first one saw.
    other = load_pictures(data_set.records, segmenter(), tmp_path, retry=False)
    assert len(other) == 18
    assert [line.split(":")[0] for line in other.problems] == ["p03", "p05"]
    healed = load_pictures(data_set.records, segmenter(), tmp_path)
    assert healed.problems == ()
    whole = load_pictures(data_set.records, segmenter(), tmp_path / "other")
    assert np.array_equal(healed.images, whole.images)
    assert np.array_equal(healed.masks, whole.masks)


def test_a_disk_that_is_too_small_for_the_cache_is_one_line(
    data_set, split, tmp_path, monkeypatch, capsys
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(data.os, "posix_fallocate", full, raising=False)
    out = tmp_path / "run"
    arguments = train_arguments(data_set, split, out, tmp_path)
    assert cli.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left on device" in line
    assert str(tmp_path / "cache") in line
    # Nothing half-made stays behind to fill the disk, or to be taken for pictures.
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]

    def cannot(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(data.os, "posix_fallocate", cannot, raising=False)
    assert len(load_pictures(data_set.records, segmenter(), tmp_path / "cache")) == 20


# --- samples -----------------------------------------------------------------------------------


def test_a_part_without_pictures_is_no_empty_file(tmp_path, monkeypatch):
    """Which NumPy 1.26 refuses to map."""
    sizes, memmap = [], np.memmap

    def noting(path, *args, **options):
        sizes.append(path.stat().st_size)
        return memmap(path, *args, **options)

    monkeypatch.setattr(np, "memmap", noting)
    pictures = load_pictures((), segmenter(), tmp_path)
    assert (len(pictures), pictures.images.shape) == (0, (0, 32, 32, 3))
    assert sizes == [1, 1, 1]


def test_samples_do_not_depend_on_who_makes_them(data_set, tmp_path):
    recipe = segmenter()
    views = Views(load_pictures(data_set.records, recipe, tmp_path), (), recipe)
    plan = list(Batches(20, 4, 7).share(0, 6, 0, 1))
    alone = list(loader(views, plan, workers=0))
    shared = list(loader(views, plan, workers=2))
    for batch, other in zip(alone, shared, strict=True):
        assert batch["image"].dtype == torch.uint8
        assert tuple(batch["image"].shape) == (4, 32, 32, 3)
        assert tuple(batch["mask"].shape) == (4, 1, 32, 32)
        assert_same(batch, other)
    assert not torch.equal(alone[0]["image"], alone[5]["image"])


def test_a_sample_holds_what_its_network_needs(data_set, tmp_path):
    labels = ("mel", "nv")
    some = (data_set.records[0], replace(data_set.records[2], mask=None, age=None))
    recipe = load_recipe("multitask", [*TINY, "pretrained=no", "metadata=age,site"])
    views = Views(load_pictures(some, recipe, tmp_path), labels, recipe)
    for key in ((None, 0), (3, 0)):
        sample = views[key]
        assert set(sample) == {"image", "mask", "classes", "metadata"}
        assert set(np.unique(sample["mask"])) == {0, 1}
        assert sample["classes"].tolist() == [1, 0]
    # What is not known is marked so, whatever augmentation does to it.
    for key in ((None, 1), (3, 1)):
        assert (views[key]["mask"] == -1).all()
        assert views[key]["classes"].tolist() == [0, 1]
    assert np.array_equal(views[None, 0]["metadata"], encode(("age", "site"), 20, None, "back"))
    assert np.array_equal(views[None, 1]["metadata"], encode(("age", "site"), None, None, "back"))
    plain = classifier()
    assert set(Views(load_pictures(some, plain, tmp_path), labels, plain)[0, 0]) == {
        "image",
        "classes",
    }


def test_metadata_is_hidden_at_random_in_training_only(data_set, tmp_path):
    recipe = classifier("metadata=age,site", "metadata_dropout=0.4")
    pictures = load_pictures(data_set.records[:1], recipe, tmp_path)
    views = Views(pictures, ("mel", "nv"), recipe)
    told = np.array([views[epoch, 0]["metadata"] for epoch in range(400)])
    assert np.array_equal(told[7], views[7, 0]["metadata"])
    age, site = told[:, :5].any(axis=1), told[:, 5:].any(axis=1)
    for known in (age, site):
        assert 0.5 < known.mean() < 0.7
    # Each by itself: sometimes one is told and the other is not.
    assert (age & ~site).any()
    assert (site & ~age).any()
    whole = views[None, 0]["metadata"]
    assert {tuple(row) for row in told[age & site]} == {tuple(whole)}
    for dropout, count in ((0.0, 20), (1.0, 0)):
        other = Views(pictures, ("mel", "nv"), replace(recipe, metadata_dropout=dropout))
        assert sum(other[epoch, 0]["metadata"].any() for epoch in range(20)) == count
    # It draws its numbers after the pictures': they are those of a run without metadata.
    bare = Views(pictures, ("mel", "nv"), replace(recipe, metadata=""))
    assert np.array_equal(bare[7, 0]["image"], views[7, 0]["image"])


def test_balanced_sampling_draws_rare_classes_as_often(data_set):
    records = data_set.records[:2] + tuple(
        replace(data_set.records[2], id=f"n{number}") for number in range(8)
    )
    assert sampling_shares(records, 0.0) is None
    for balance, share in ((1.0, 0.5), (0.5, 1 / 3)):
        shares = sampling_shares(records, balance)
        assert sum(shares) == pytest.approx(1)
        assert sum(shares[:2]) == pytest.approx(share)
        plan = Batches(len(records), 5, 3, shares)
        assert plan.per_epoch == 2
        drawn = [index for batch in plan.share(0, 1000, 0, 1) for _, index in batch]
        assert np.mean(np.array(drawn) < 2) == pytest.approx(share, abs=0.03)
        # Any step can be the first, and each process takes its own part.
        assert list(plan.share(7, 9, 0, 1)) == list(plan.share(0, 9, 0, 1))[7:]


@pytest.mark.parametrize("sampling", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_classes_are_not_weighed_for_what_the_drawing_evens_out(data_set, sampling, balance):
    """Drawn alike and weighed alike, a class of two among ten pictures counted four times."""
    one, *_ = data_set.records
    labels = ["mel"] * 2 + ["nv"] * 8
    records = [replace(one, id=f"{i}", label=label) for i, label in enumerate(labels)]
    recipe = classifier(f"balanced_sampling={sampling}", f"loss.class_balance={balance}")
    pictures = Pictures(tuple(records), np.zeros(0), None, np.arange(10), ())
    shares = sampling_shares(records, sampling)
    learner = Learner(recipe, ("mel", "nv"), pictures, 1, make_accelerator(recipe), shares)
    left = 4 ** -((1 - sampling) * (1 - balance))  # of the 1 to 4 in which they are there
    assert learner.carried["mel"] / learner.carried["nv"] == pytest.approx(left, rel=1e-4)
    drawn = [1 / 10] * 10 if shares is None else shares
    weights = learner.class_weights[[0] * 2 + [1] * 8].numpy()
    assert (drawn * weights).sum() == pytest.approx(1)


def test_batches_visit_all_once_an_epoch_and_start_anywhere():
    batches = Batches(count=21, size=4, seed=3)
    assert batches.per_epoch == 5
    whole = list(batches.share(0, 10, 0, 1))
    first = [index for batch in whole[:5] for _, index in batch]
    assert len(set(first)) == 20
    assert {epoch for batch in whole[5:] for epoch, _ in batch} == {1}
    assert list(batches.share(7, 10, 0, 1)) == whole[7:]
    halves = zip(batches.share(0, 10, 0, 2), batches.share(0, 10, 1, 2), strict=True)
    assert [sorted(one + other) for one, other in halves] == [sorted(batch) for batch in whole]
    assert [len(batch) for batch in Batches(3, 4, 0).share(0, 2, 0, 1)] == [4, 4]


def test_a_subset_keeps_lesions_whole_and_classes_in_proportion(data_set, split):
    part = subset(data_set, split, 10)
    assert part == subset(data_set, split, 10)
    assert part.sha256 != split.sha256
    for name, ids in part.parts.items():
        assert set(ids) <= set(split.parts[name])
        lesions = {record.id: record.lesion_id for record in data_set.records}
        for lesion in {lesions[i] for i in ids}:
            assert {i for i in lesions if lesions[i] == lesion} <= set(ids)
    labels = [record.label for record in part.select(data_set.records, "train")]
    assert labels.count("mel") == labels.count("nv") == 4
    assert subset(data_set, split, 1000) is split


# --- runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(data_set, split, tmp_path_factory) -> Path:
    """A segmenter run with everything on, never stopped: 8 steps."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "whole"
    loop.train(segmenter(), data_set, split, out)
    return out


def test_a_run_folder_holds_what_export_needs(data_set, split, finished):
    run = load_run(finished)
    assert (run.kind, run.model, run.labels, run.size) == ("segmenter", "mobilegan-nano", (), 32)
    assert (run.steps, run.finished, run.processes) == (8, True, 1)
    assert (run.data_set, run.data_root) == ("csv", str(data_set.root))
    assert run.split_sha256 == split.sha256
    assert run.pictures == {"train": 16, "val": 4}
    assert run.subset is None
    assert not run.procedural
    assert 0 <= run.val["jaccard"] <= 1
    assert load_recipe(finished / "recipe.toml") == replace(segmenter(), name="segmenter")
    assert list((finished / "tensorboard").glob("events*"))
    with open(finished / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["4", "8"]
    for column in ("lr", "bce", "jaccard", "l1", "adversarial", "discriminator", "val_jaccard"):
        assert all(float(row[column]) >= 0 for row in rows)
    model = load_model(run)
    assert not model.training
    with torch.no_grad():
        logits = model(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    assert tuple(logits.shape) == (1, 1, 32, 32)


def test_a_finished_run_is_not_trained_again(data_set, split, finished):
    before, whole = (finished / "checkpoint.pt").stat().st_mtime_ns, load_run(finished)
    # Nor is today's code, or are today's processes, those that it was trained by.
    trained = replace(whole, commit="5f0c1d2", versions={"dermedge": "0.1.9"}, processes=4)
    trained.save()
    assert loop.train(segmenter(), data_set, split, finished) == trained
    assert (finished / "checkpoint.pt").stat().st_mtime_ns == before
    whole.save()


KILLED = """
import os, signal, sys
import torch
from dermedge import cli
from train import loop
torch.set_num_threads(1)
update = loop.Learner.update
def deadly(self, *batch):
    if self.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return update(self, *batch)
loop.Learner.update = deadly
sys.exit(cli.main(sys.argv[1:]))
"""


def train_arguments(data_set, split, out, folder) -> list[str]:
    split.save(folder / "split.json")
    sets = [part for override in SEGMENTER for part in ("--set", override)]
    source = ["--data", f"csv={data_set.root}", "--split", str(folder / "split.json")]
    return ["train", "segmenter", "--recipe", "segmenter", *source, "--out", str(out), *sets]


def test_a_killed_run_goes_on_to_the_very_same_weights(data_set, split, finished, tmp_path):
    out = tmp_path / "killed"
    arguments = train_arguments(data_set, split, out, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        capture_output=True,
        env=one_core(),
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert checkpoint(out)["step"] == 6
    assert load_run(out).steps == 6
    assert cli.main(arguments) == 0
    assert_same(checkpoint(finished), checkpoint(out))
    best = [torch.load(run / "best.pt", weights_only=True) for run in (finished, out)]
    assert_same(*best)
    assert (finished / "log.csv").read_text() == (out / "log.csv").read_text()
    assert load_run(finished).val == load_run(out).val


def test_a_worker_leaves_the_first_request_to_stop_to_the_training():
    """systemd asks all of a group: a worker died of it, and the training with a traceback."""
    signals = (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT), signal.SIGTERM)
    before, threads = [signal.getsignal(one) for one in signals], cv2.getNumThreads()
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        data._start_worker(0)
        for one in signals:
            signal.raise_signal(one)
        # PyTorch ends a worker that hangs by the same signal.
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        cv2.setNumThreads(threads)
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)


def test_ctrl_c_saves_and_the_same_call_goes_on(data_set, split, finished, tmp_path, monkeypatch):
    update = loop.Learner.update

    def interrupted(self, *batch):
        if self.step == 4:
            signal.raise_signal(signal.SIGINT)
        return update(self, *batch)

    before = signal.getsignal(signal.SIGINT)
    out = tmp_path / "run"
    monkeypatch.setattr(loop.Learner, "update", interrupted)
    with pytest.raises(loop.Interrupted, match="after step 5 of 8"):
        loop.train(segmenter(), data_set, split, out)
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    torch.set_num_threads(1)
    assert checkpoint(out)["step"] == 5
    # Also where the code is another by now: the run names both.
    part = load_run(out)
    replace(part, commit="5f0c1d2", versions={**part.versions, "dermedge": "0.1.9"}).save()
    run = loop.train(segmenter(), data_set, split, out)
    assert run.commit.startswith("5f0c1d2, ")
    assert run.versions == {**part.versions, "dermedge": f"0.1.9, {__version__}"}
    assert_same(checkpoint(finished), checkpoint(out))
    assert (finished / "log.csv").read_text() == (out / "log.csv").read_text()


@pytest.mark.parametrize("fresh", [True, False])
def test_what_goes_on_after_ctrl_c_is_not_thrown_away(
    data_set, split, tmp_path, monkeypatch, capsys, fresh
):
    def interrupted(*_, **__):
        raise loop.Interrupted("stopped after step 1 of 8, all of it saved")

    monkeypatch.setattr(loop, "train", interrupted)
    words = train_arguments(data_set, split, tmp_path / "run", tmp_path)
    assert cli.main([*words, *(["--fresh"] if fresh else [])]) == 130
    assert ("goes on from here (without --fresh)" in capsys.readouterr().err) == fresh


def test_a_run_killed_before_its_last_note_can_be_finished(data_set, split, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    whole = load_run(out)
    (out / "run.json").unlink()
    # The commit is the checkout's own, which may move on meanwhile.
    for _ in range(2):
        again = loop.train(segmenter(), data_set, split, out)
        assert replace(again, commit=whole.commit) == whole
        replace(whole, steps=6, finished=False, val={}).save()


def test_a_run_killed_before_its_first_checkpoint_lists_the_pictures_of_today(known, tmp_path):
    pictures, run = known
    folder = shutil.copytree(run.folder, tmp_path / "run")
    stale = (folder / FILE).read_bytes()
    for name in ("run.json", "checkpoint.pt", "best.pt"):
        (folder / name).unlink()
    split = Split.load(folder / "split.json")
    other = renamed(pictures, "ham10000", "ISIC_{number:07}", tmp_path / "mirrored")
    loop.train(classifier("max_steps=1", "ema=0"), other, split, folder)
    listed = [TrainingPictures.from_bytes(c) for c in (stale, (folder / FILE).read_bytes())]
    assert not set(listed[0].prints.files) & set(listed[1].prints.files)


def test_a_resumed_run_needs_no_imagenet_weights_and_remembers_them(
    data_set, split, tmp_path, monkeypatch, capsys
):
    from torchvision.models import mobilenet_v3_small

    def refuse(*_args, **_kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    recipe = classifier("model=mobilenet_v3_small", "pretrained=required", "max_steps=2")
    with pytest.raises(UserError, match=r"cannot be loaded .*TORCH_HOME"):
        loop.train(recipe, data_set, split, tmp_path / "run")
    weights = tmp_path / "hub" / "checkpoints" / "mobilenet_v3_small-047dcff4.pth"
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save(mobilenet_v3_small().state_dict(), weights)
    assert loop.train(recipe, data_set, split, tmp_path / "run").pretrained
    weights.unlink()
    capsys.readouterr()
    assert loop.train(recipe, data_set, split, tmp_path / "run").pretrained
    assert "ImageNet" not in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["text", "cut", "other network"])
def test_damaged_weights_are_one_line(data_set, split, finished, tmp_path, damage):
    out = shutil.copytree(finished, tmp_path / "run")
    for path in (out / "checkpoint.pt", out / "best.pt"):
        if damage == "text":
            path.write_bytes(b"no weights at all")
        elif damage == "cut":
            path.write_bytes(path.read_bytes()[:-2000])
        else:
            torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match=r"checkpoint\.pt cannot be read: .*--fresh"):
        loop.train(segmenter(), data_set, split, out)
    with pytest.raises(UserError, match=r"best\.pt cannot be read: .*take the original"):
        load_model(load_run(out))


def test_notes_on_the_split_are_told_a_few_at_most(data_set, split, finished, capsys):
    loop.train(segmenter(), data_set, split, finished)
    assert "note" not in capsys.readouterr().err
    noted = replace(split, notes=tuple(f"lesion L{n} crosses parts" for n in range(5)))
    with pytest.raises(UserError, match="another split"):
        loop.train(segmenter(), data_set, noted, finished)
    recipe = classifier("max_steps=1")
    loop.train(recipe, data_set, noted, finished.parent / "noted")
    lines = [line for line in capsys.readouterr().err.splitlines() if "note" in line]
    assert [line.split(": ")[-1] for line in lines[:3]] == list(noted.notes[:3])
    assert lines[3:] == ["... and 2 more notes"]


def test_another_recipe_or_split_does_not_touch_a_run(data_set, split, finished):
    before = {p.name: p.stat().st_mtime_ns for p in finished.iterdir() if p.is_file()}
    with pytest.raises(UserError, match=r"another recipe \(now lr = 0.01\).*--fresh"):
        loop.train(segmenter("optimizer.lr=0.01"), data_set, split, finished)
    with pytest.raises(UserError, match=r"another split.*--fresh"):
        loop.train(segmenter(), data_set, make_split(data_set, seed=9), finished)
    assert before == {p.name: p.stat().st_mtime_ns for p in finished.iterdir() if p.is_file()}


def test_a_training_that_began_meanwhile_is_left_alone(
    data_set, split, tmp_path, monkeypatch, capsys
):
    out, other = tmp_path / "run", to_toml(segmenter("seed=2"))
    process = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None)

    def begin(recipe, _, split, folder, fresh):
        out.mkdir()
        (out / "recipe.toml").write_text(other)
        make_folder(folder, recipe, split, fresh, process)

    monkeypatch.setattr(loop, "train", begin)
    assert cli.main(train_arguments(data_set, split, out, tmp_path)) == 2
    assert "holds a run with another recipe" in capsys.readouterr().err
    assert [item.name for item in out.iterdir()] == ["recipe.toml"]
    assert (out / "recipe.toml").read_text() == other


@pytest.mark.skipif(os.name != "posix", reason="needs a lock of a folder")
@pytest.mark.parametrize("more", [[], ["--fresh"]])
def test_a_training_at_work_is_left_alone(data_set, split, tmp_path, monkeypatch, capsys, more):
    """Even of the same recipe, which would go on there, and with --fresh, which throws it away."""
    out, held = tmp_path / "run", []
    process = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None)

    def begin(recipe, _, split, folder, fresh):
        held.append(make_folder(folder, recipe, split, False, process))
        make_folder(folder, recipe, split, fresh, process)

    monkeypatch.setattr(loop, "train", begin)
    words = [*train_arguments(data_set, split, out, tmp_path), *more]
    assert cli.main(words) == 2
    refused = f"another training is at work in {out}: wait for it, or give another --out"
    assert refused in capsys.readouterr().err
    assert sorted(item.name for item in out.iterdir()) == ["recipe.toml", "split.json"]
    held.pop().close()
    make_folder(out, segmenter(), split, bool(more), process).close()


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_fresh_looks_once_more_before_it_deletes_and_follows_a_link(split, tmp_path):
    """Hours may have passed since the first look, in which the pictures were prepared."""
    out, link = tmp_path / "run", tmp_path / "link"
    link.symlink_to(out)
    process = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None)
    make_folder(out, segmenter(), split, False, process).close()
    (out / "tensorboard").mkdir()
    (out / "notes.txt").write_text("kept")
    with pytest.raises(UserError, match=r"holds other files \(notes.txt\)"):
        make_folder(link, segmenter("seed=2"), split, True, process)
    (out / "notes.txt").unlink()
    make_folder(link, segmenter("seed=2"), split, True, process).close()
    assert sorted(item.name for item in out.iterdir()) == ["recipe.toml", "split.json"]
    assert load_recipe(out / "recipe.toml").seed == 2


def test_a_run_does_not_go_on_where_its_pictures_are_called_otherwise(known, tmp_path):
    """Else a network that learnt melanomas would call them what the table says today."""
    pictures, run = known
    folder = shutil.copytree(run.folder, tmp_path / "run")
    before = (folder / "run.json").read_bytes()
    archive = renamed(pictures, "ham10000", "ISIC_{number:07}")
    split = Split.load(folder / "split.json")
    first, *others = archive.records
    called = [replace(r, label="bcc" if r.label == "mel" else r.label) for r in archive.records]
    exchanged = [replace(first, image=others[0].image), replace(others[0], image=first.image)]
    for records, words in (
        (called, "of bcc, nv, then .* of mel, nv"),
        ([replace(first, label="nv"), *others], "their classes or metadata differ"),
        ([*exchanged, *others[1:]], "there are other files under their names"),
    ):
        other = replace(archive, records=tuple(records))
        with pytest.raises(UserError, match=rf"have changed since \(.*{words}"):
            loop.train(classifier("max_steps=1", "ema=0"), other, split, folder)
    assert (folder / "run.json").read_bytes() == before


def test_a_run_does_not_go_on_with_other_masks(data_set, split, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    first, second, *others = data_set.records
    masks = [replace(first, mask=second.mask), replace(second, mask=first.mask)]
    drawn = replace(data_set, records=(*masks, *others))
    with pytest.raises(UserError, match="there are other files under their names, or masks"):
        loop.train(segmenter(), drawn, split, out)
    # Of earlier versions, which did not note them, nothing is known.
    replace(load_run(out), files="").save()
    assert loop.train(segmenter(), drawn, split, out).files != load_run(finished).files


def test_what_is_not_learnt_from_is_said(data_set, split):
    train, val = (split.parts[part] for part in ("train", "val"))
    changed = {train[0]: {"label": None, "mask": None}, val[0]: {"label": "df"}}
    records = tuple(replace(r, **changed.get(r.id, {})) for r in data_set.records)
    other = replace(data_set, records=records)
    said = {}
    for recipe in (classifier("classes=mel,nv,scc,df"), segmenter()):
        labels, chosen = loop._choose(recipe, other, split)
        said[recipe.kind] = list(loop._unused(recipe, other, split, labels, chosen))
    assert said["classifier"] == [
        "no training picture is of scc, df: not a class of this network",
        "1 of 16 training pictures have no class and are not used",
        "validation pictures of classes without a training picture, not used: df 1",
    ]
    assert said["segmenter"] == ["1 of 16 training pictures have no mask and are not used"]
    labels, chosen = loop._choose(classifier("classes=mel,nv"), other, split)
    unused = loop._unused(classifier("classes=mel,nv"), other, split, labels, chosen)
    assert list(unused) == ["1 of 16 training pictures have no class and are not used"]
    # Crops are by drawn lesions.
    cropped = classifier("preprocessing.crop=1.5")
    some, bare = (
        replace(
            data_set,
            records=tuple(replace(r, mask=None) if r.id in ids else r for r in data_set.records),
        )
        for ids in ((train[0], val[0]), (*train, *val))
    )
    assert list(loop._unused(cropped, some, split, *loop._choose(cropped, some, split))) == [
        f"1 of {count} {part} pictures have no mask: they are not cropped, but seen whole; "
        "crop_by=NAME crops all by the segmenter of a bundle"
        for part, count in (("training", 16), ("validation", 4))
    ]
    with pytest.raises(UserError, match="no training picture of csv has a mask"):
        loop._choose(cropped, bare, split)
    # As where the table has grown since the split was frozen.
    grown = replace(data_set, records=(*data_set.records, replace(data_set.records[0], id="new")))
    unused = loop._unused(segmenter(), grown, split, *loop._choose(segmenter(), grown, split))
    assert list(unused) == ["1 of 21 pictures are in no part of the split, not used"]
    unused = loop._unused(
        segmenter(),
        data_set,
        part := subset(data_set, split, 8),
        (),
        {name: part.select(data_set.records, name) for name in ("train", "val")},
    )
    assert list(unused) == []


def test_fresh_starts_again_but_never_deletes_other_files(data_set, split, tmp_path):
    out = tmp_path / "run"
    short = classifier("max_steps=2")
    loop.train(short, data_set, split, out)
    for name in ("Thumbs.db", "._best.pt"):
        (out / name).write_bytes(b"of a file manager")
    run = loop.train(replace(short, max_steps=3), data_set, split, out, fresh=True)
    assert run.steps == 3
    assert (run.kind, run.labels) == ("classifier", ("mel", "nv"))
    assert set(run.val) == {"auc", "balanced_accuracy"}
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("kept")
    for fresh in (False, True):
        with pytest.raises(UserError, match="holds other files"):
            loop.train(short, data_set, split, other, fresh=fresh)
    # Nor the run, where the one that was to replace it is refused.
    with pytest.raises(UserError, match=r"none\.pth to start from"):
        loop.train(classifier("start=none.pth"), data_set, split, out, fresh=True)
    assert load_run(out) == run
    (out / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match=r"without the checkpoint\.pt that it would go on from"):
        loop.train(replace(short, max_steps=3), data_set, split, out)
    # Nor those beside a recipe of one's own, or in the folder of a run.
    (other / "recipe.toml").write_text(to_toml(short))
    for folder, ways in ((other, (False, True)), (out, (True,))):
        (folder / "chapter.txt").write_text("kept")
        for fresh in ways:
            with pytest.raises(UserError, match=r"holds other files \(chapter.txt\)"):
                loop.train(short, data_set, split, folder, fresh=fresh)
        assert (folder / "chapter.txt").read_text() == "kept"


def test_without_an_adversarial_weight_there_is_no_discriminator(data_set, split, tmp_path):
    recipe = segmenter("loss.adversarial=0", "ema=0", "max_steps=1")
    loop.train(recipe, data_set, split, tmp_path / "run")
    kept = checkpoint(tmp_path / "run")
    assert set(kept) == {"model", "optimizer", "step", "best_scores", "pretrained", "weighed"}


def test_pictures_without_a_mask_teach_the_class_alone(data_set, tmp_path):
    recipe = load_recipe("multitask", [*TINY, "pretrained=no", "loss.adversarial=0.02"])
    records = list(data_set.records)
    pictures = load_pictures(records, recipe, tmp_path)
    labels = ("mel", "nv")

    def learn(unknown: set[int]):
        learner = Learner(recipe, labels, pictures, 4, make_accelerator(recipe))
        (batch,) = loader(Views(pictures, labels, recipe), [[(0, i) for i in range(4)]], 0)
        for index in unknown:
            batch["mask"][index] = -1
        return learner.update(batch)

    whole = learn(set())
    none = learn({0, 1, 2, 3})
    assert none.keys() == whole.keys()  # or several processes would wait for each other for ever
    assert none["cross_entropy"] == whole["cross_entropy"]
    assert all(value == 0 for name, value in none.items() if name != "cross_entropy")
    # Some masks: the losses are those of the pictures that have one.
    some = learn({1, 3})
    mask_logits = []
    fresh = Learner(recipe, labels, pictures, 4, make_accelerator(recipe))
    fresh.model.register_forward_hook(lambda *call: mask_logits.append(call[2][0].detach()))
    (batch,) = loader(Views(pictures, labels, recipe), [[(0, i) for i in range(4)]], 0)
    fresh.update(batch)
    known = batch["mask"][[0, 2]]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(mask_logits[0][[0, 2]], known)
    assert some["bce"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert some["bce"] != whole["bce"]


def test_all_that_several_people_drew_is_learnt_from_and_one_mask_measures(
    data_set, split, tmp_path, capsys
):
    other = tmp_path / "other.png"
    write_png(other, np.pad(np.full((9, 9), 255, np.uint8), ((9, 18), (12, 27))))
    first, second, held = split.parts["train"][:2] + split.parts["val"][:1]
    records = {record.id: record for record in data_set.records}
    both = {name: (records[name].mask, other) for name in (first, second, held)}
    records[first] = replace(records[first], outlines=both[first])
    records[second] = replace(records[second], mask=None, outlines=both[second])  # too far apart
    records[held] = replace(records[held], mask=None, outlines=both[held])
    drawn = replace(data_set, records=tuple(records.values()))
    recipe = segmenter("outlines=all", "max_steps=1")
    _, chosen = loop._choose(recipe, drawn, split)
    found = sorted((record.id, record.mask) for record in chosen["train"])
    assert found == sorted(
        (name, path)
        for name in split.parts["train"]
        for path in both.get(name, (records[name].mask,))
    )
    run = loop.train(recipe, drawn, split, tmp_path / "run")
    assert run.pictures == {"train": len(split.parts["train"]), "val": len(split.parts["val"]) - 1}
    assert "1 of 4 validation pictures have no mask" in capsys.readouterr().err
    agreed = loop.train(segmenter("max_steps=1"), drawn, split, tmp_path / "agreed")
    assert agreed.pictures["train"] == run.pictures["train"] - 1
    with pytest.raises(UserError, match="was outlined by several people; leave it out"):
        loop.train(recipe, data_set, split, tmp_path / "none")
    with pytest.raises(RecipeError, match="is for segmenters"):
        classifier("outlines=all")


@pytest.mark.parametrize(
    ("amp", "fast", "warned"), [("bf16", False, True), ("bf16", True, False), ("no", False, False)]
)
def test_a_processor_without_bfloat16_is_warned_of(monkeypatch, capsys, amp, fast, warned):
    here = SimpleNamespace(device=torch.device("cpu"), num_processes=1, is_main_process=True)
    monkeypatch.setattr(loop, "Accelerator", lambda **_: here)
    monkeypatch.setattr(loop, "_has_bfloat16", lambda: fast)
    assert make_accelerator(classifier(f"amp={amp}")) is here
    assert ("no fast bfloat16" in capsys.readouterr().err) == warned


@pytest.fixture
def own_precision():
    """For a test that trains in another precision than the others of its process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("own_precision")
def test_validation_computes_as_precisely_as_what_is_saved(data_set, split, tmp_path, monkeypatch):
    seen, planes = set(), Normalized.planes

    def noted(model, image):
        seen.add((model.training, torch.is_autocast_enabled("cpu")))
        return planes(model, image)

    monkeypatch.setattr(Normalized, "planes", noted)
    recipe = classifier("amp=bf16", "ema=0", "max_steps=1")
    loop.train(recipe, data_set, split, tmp_path / "run")
    assert seen == {(True, True), (False, False)}


@pytest.mark.parametrize("amp", ["no", "bf16"])
def test_who_trains_in_single_precision_is_not_advised_to(amp):
    learner = SimpleNamespace(
        accelerator=SimpleNamespace(reduce=lambda values, how: values),
        recipe=classifier(f"amp={amp}"),
        step=7,
    )
    with pytest.raises(UserError, match="no longer a number at step 7") as stop:
        Learner.measured(learner, {"cross_entropy": torch.tensor(torch.nan)})
    assert ("amp" in str(stop.value)) == (amp != "no")


def test_masks_weigh_the_same_over_two_processes_as_over_one():
    known = torch.tensor([True, False, False, True, False, True, False, False])
    values = torch.arange(8.0)
    found = 0.0
    for rank in range(2):
        mine = known[rank::2]
        accelerator = SimpleNamespace(
            num_processes=2, device="cpu", reduce=lambda *_: known.float().sum()
        )
        learner = SimpleNamespace(accelerator=accelerator, recipe=load_recipe("multitask"))
        found += Learner._mask_share(learner, mine) * values[rank::2][mine].mean() / 2
    assert float(found) == pytest.approx(float(values[known].mean()))


def test_a_multitask_run_is_scored_by_both_of_its_answers(data_set, split, tmp_path):
    some = tuple(replace(r, mask=None) if i % 3 else r for i, r in enumerate(data_set.records))
    recipe = load_recipe("multitask", [*TINY, "pretrained=no", "max_steps=4", "metadata=age"])
    run = loop.train(recipe, replace(data_set, records=some), split, tmp_path / "run")
    assert (run.kind, run.labels, run.metadata) == ("multitask", ("mel", "nv"), ("age",))
    assert run.pictures == {"train": 16, "val": 4}
    assert set(run.val) == {"jaccard", "auc", "balanced_accuracy", "mean"}
    assert run.val["mean"] == pytest.approx((run.val["jaccard"] + run.val["auc"]) / 2)
    assert load_run(tmp_path / "run") == run
    with torch.no_grad():
        image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
        mask, classes = load_model(run)(image, torch.zeros(1, 5))
    assert (tuple(mask.shape), tuple(classes.shape)) == ((1, 1, 32, 32), (1, 2))


def test_a_run_starts_from_another_run(data_set, split, finished, tmp_path, capsys):
    first = classifier("max_steps=1", "ema=0")
    loop.train(first, data_set, split, tmp_path / "first")
    start = f"start={tmp_path / 'first'}"
    recipe = classifier("max_steps=1", "ema=0", start, "optimizer.lr=1e-7", "metadata=age")
    run = loop.train(recipe, data_set, split, tmp_path / "second")
    assert run.start == str(tmp_path / "first")
    assert "new: net.head.metadata.0.weight" in capsys.readouterr().err
    weights = [torch.load(tmp_path / r / "best.pt", weights_only=True) for r in ("first", "second")]
    key = "net.trunk.0.0.weight"
    torch.testing.assert_close(weights[0][key], weights[1][key], atol=1e-6, rtol=0)
    # A resumed run needs the other no more.
    shutil.rmtree(tmp_path / "first")
    longer = tmp_path / "second" / "recipe.toml"
    assert loop.train(load_recipe(longer), data_set, split, tmp_path / "second").finished
    with pytest.raises(UserError, match=r"there is no .*first to start from"):
        loop.train(recipe, data_set, split, tmp_path / "third")
    (tmp_path / "text.pth").write_text("no weights")
    for path, complaint in (
        (finished, "cannot start from .*best.pt: .*of another network"),
        (tmp_path / "text.pth", "text.pth cannot be read: it is damaged"),
    ):
        with pytest.raises(UserError, match=complaint) as told:
            loop.train(classifier(f"start={path}"), data_set, split, tmp_path / f"of-{path.name}")
        assert "\n" not in str(told.value)


def test_learners_ask_their_teachers(data_set, split, finished, tmp_path):
    teacher = f"distillation.teachers={finished}"
    recipe = segmenter(teacher, "loss.adversarial=0", "max_steps=2", "model=mobilegan")
    loop.train(recipe, data_set, split, tmp_path / "run")
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["distillation"]) > 0
    # From the teachers alone: what the data set says weighs nothing.
    alone = segmenter(teacher, "loss.adversarial=0", "max_steps=2", "distillation.weight=1")
    loop.train(alone, data_set, split, tmp_path / "alone")
    with open(tmp_path / "alone" / "log.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["bce"]) == float(row["jaccard"]) == 0
    refused = {
        "was trained with another preprocessing: set preprocessing.size=32$": segmenter(
            teacher, "preprocessing.size=64"
        ),
        "is a segmenter, not a classifier$": classifier(teacher),
        "is no run folder": segmenter("distillation.teachers=nowhere"),
    }
    for number, (complaint, wrong) in enumerate(refused.items()):
        with pytest.raises(UserError, match=complaint):
            loop.train(wrong, data_set, split, tmp_path / str(number))


def test_a_run_goes_on_with_the_teacher_that_it_began_with(data_set, split, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "teacher")
    taught = f"distillation.teachers={tmp_path / 'teacher'}"
    recipe = segmenter(taught, "loss.adversarial=0", "max_steps=2")
    run = loop.train(recipe, data_set, split, tmp_path / "run")
    assert len(run.teachers[str(tmp_path / "teacher")]) == 64
    replace(run, finished=False, steps=1).save()
    loop.train(recipe, data_set, split, tmp_path / "run")
    # Trained again under the same name.
    replace(run, finished=False, steps=1).save()
    with open(tmp_path / "teacher" / "best.pt", "ab") as file:
        file.write(b"0")
    with pytest.raises(UserError, match=r"is another network than the one that .*run began to"):
        loop.train(recipe, data_set, split, tmp_path / "run")
    # A finished one needs it no more.
    run.save()
    shutil.rmtree(tmp_path / "teacher")
    assert loop.train(recipe, data_set, split, tmp_path / "run") == run


def test_a_run_does_not_go_on_where_classes_weigh_otherwise(data_set, split, tmp_path):
    out = tmp_path / "run"
    recipe = classifier("max_steps=1", "ema=0", "balanced_sampling=0.5", "loss.class_balance=1")
    whole = loop.train(recipe, data_set, split, out)
    before = checkpoint(out)
    weighed = {"classes": before["weighed"]["classes"] * torch.tensor([1.1, 0.9])}
    without = {name: part for name, part in before.items() if name != "weighed"}
    for other in (without, {**before, "weighed": weighed}):
        # A finished one says what it learnt by, and not what it would learn by today.
        torch.save(other, out / "checkpoint.pt")
        replace(whole, prior={"mel": 0.75, "nv": 0.25}).save()
        again = loop.train(recipe, data_set, split, out)
        assert (again.finished, again.prior) == (True, {"mel": 0.75, "nv": 0.25})
        torch.save({**other, "step": 0}, out / "checkpoint.pt")
        with pytest.raises(UserError, match="run was begun by a version of dermedge that weighed"):
            loop.train(recipe, data_set, split, out)
    torch.save({**before, "step": 0}, out / "checkpoint.pt")
    assert loop.train(recipe, data_set, split, out).prior == whole.prior


def test_a_learner_that_is_its_teacher_has_nothing_to_learn(data_set, split, tmp_path):
    first = classifier("max_steps=1", "ema=0")
    run = loop.train(first, data_set, split, tmp_path / "run")
    teacher = f"distillation.teachers={run.folder}"
    recipe = classifier("max_steps=1", f"start={run.folder}", teacher, "distillation.weight=1")
    pictures = load_pictures(data_set.records, recipe, tmp_path / "cache")
    learner = Learner(recipe, run.labels, pictures, 1, make_accelerator(recipe))
    learner.model.eval()  # without dropout, and without the batch's own statistics
    learner.model.train = lambda mode=True: learner.model
    (batch,) = loader(Views(pictures, run.labels, recipe), [[(0, i) for i in range(4)]], 0)
    losses = learner.update(batch)
    assert losses["distillation"].item() == pytest.approx(0, abs=1e-6)
    assert losses["cross_entropy"] == 0


def test_mixing_trains_on_mixed_classes(data_set, split, tmp_path):
    recipe = classifier("augmentation.mixup=0.4", "augmentation.cutmix=1", "loss.focal=2")
    run = loop.train(replace(recipe, max_steps=4), data_set, split, tmp_path / "run")
    assert run.finished
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        assert all(float(row["cross_entropy"]) > 0 for row in csv.DictReader(file))


def test_validation_may_be_rare_but_the_end_is_validated(data_set, split, tmp_path):
    recipe = load_recipe("classifier", [*CLASSIFIER, "epochs=5", "validate_every=2"])
    run = loop.train(recipe, data_set, split, tmp_path / "run")
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        scored = [int(row["epoch"]) for row in csv.DictReader(file) if row["val_auc"]]
    assert scored == [1, 3, 4]
    assert (tmp_path / "run" / "best.pt").exists()
    assert run.val


def test_a_run_that_need_not_be_exact_lets_the_machine_choose(data_set, split, tmp_path):
    before = torch.backends.cudnn.benchmark
    try:
        for exact in (True, False):
            recipe = load_recipe(
                "classifier", [*CLASSIFIER, "max_steps=1", f"exact={str(exact).lower()}"]
            )
            loop.train(recipe, data_set, split, tmp_path / str(exact))
            assert torch.are_deterministic_algorithms_enabled() == exact
            assert torch.backends.cudnn.benchmark != exact
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = before


@pytest.mark.slow
def test_mixed_precision_and_channels_last_train(data_set, split, tmp_path):
    arguments = train_arguments(data_set, split, tmp_path / "run", tmp_path)
    arguments += ["--set", "amp=bf16", "--set", "channels_last=true", "--set", "max_steps=2"]
    # In a process of its own: Accelerate keeps one precision for a process's life.
    command = [sys.executable, "-m", "dermedge.cli", *arguments]
    done = subprocess.run(command, capture_output=True, env=one_core(), timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    assert checkpoint(tmp_path / "run")["step"] == 2


@pytest.mark.parametrize(
    ("kind", "part"),
    [pytest.param("segmenter", "jaccard", marks=pytest.mark.slow), ("classifier", "cross_entropy")],
)
def test_the_loss_falls_where_the_task_is_easy(data_set, split, tmp_path, kind, part):
    fast = ("epochs=10", "optimizer.lr=3e-3")
    recipe = {
        "segmenter": lambda: segmenter(*fast, "model=mobilegan"),
        "classifier": lambda: classifier(*fast, "model=mobilenet_v3_small"),
    }[kind]()
    loop.train(replace(recipe, augmentation=STILL), data_set, split, tmp_path / "run")
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        losses = [float(row[part]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.7 * losses[0]


TWO = """
import json, sys
from pathlib import Path
from accelerate.utils import gather_object
from dermedge import cli
from train import loop
made = []
class Watched(loop.Learner):
    def __init__(self, *args):
        super().__init__(*args)
        made.append(self)
    def update(self, batch):
        self.seen = getattr(self, "seen", 0) + len(batch["image"])
        return super().update(batch)
def watched(*args, **options):
    run = train(*args, **options)
    learner = made.pop()
    rank = learner.accelerator.process_index
    weights = [p.detach().double().sum().item() for p in learner.model.parameters()]
    weights += [p.detach().double().sum().item() for p in learner.critic.parameters()]
    found = gather_object([{"rank": rank, "seen": learner.seen, "weights": weights}])
    if rank == 0:
        Path(sys.argv[1]).write_text(json.dumps(found))
    return run
train, loop.train, loop.Learner = loop.train, watched, Watched
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["loader", "device"])
def test_two_processes_train_one_network(data_set, split, finished, tmp_path, where):
    script, out = tmp_path / "two.py", tmp_path / "run"
    script.write_text(TWO)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    arguments = train_arguments(data_set, split, out, tmp_path)
    arguments += ["--set", f"augment_on={where}"]
    done = subprocess.run(
        [*launch, "--nproc-per-node", "2", str(script), str(tmp_path / "found.json"), *arguments],
        capture_output=True,
        env=one_core(),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads((tmp_path / "found.json").read_text())
    assert [entry["rank"] for entry in found] == [0, 1]
    assert found[0]["weights"] == found[1]["weights"]
    # Half of every batch each; as many steps as one process takes.
    assert [entry["seen"] for entry in found] == [16, 16]
    run = load_run(out)
    assert (run.steps, run.finished, run.processes) == (8, True, 2)
    assert done.stdout.decode().count("steps of mobilegan") == 1
    logs = [(folder / "log.csv").read_text().splitlines() for folder in (finished, out)]
    assert len({tuple(row.split(",")[0] for row in rows) for rows in logs}) == 1


# --- what the command refuses ------------------------------------------------------------------


def one_core() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["segmenter", "--recipe", "classifier"], "trains a classifier, not a segmenter"),
        (["segmenter", "--recipe", "nothing"], "no recipe 'nothing'; there are: classifier"),
        (["segmenter", "--recipe", "segmenter", "--set", "lr=3"], "unknown key lr"),
        (["segmenter", "--recipe", "segmenter", "--limit", "0"], "--limit must be 1 or more"),
    ],
)
def test_wrong_use_is_one_line(data_set, tmp_path, capsys, arguments, complaint):
    rest = ["--data", f"csv={data_set.root}", "--out", str(tmp_path / "run")]
    assert cli.main(["train", *arguments, *rest]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert complaint in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("source_weights=csv=2", "source_weights names csv"),
        ("loss.group=skin_tone", "needs two groups"),
        ("start=none.pth", "none.pth to start from"),
    ],
)
def test_what_was_refused_leaves_no_run(data_set, split, tmp_path, capsys, change, complaint):
    """Else the corrected command is refused as another recipe."""
    split.save(tmp_path / "split.json")
    out, sets = tmp_path / "run", ["preprocessing.size=32", "pretrained=no", "model=mobilenet_v2"]
    words = ["--data", f"csv={data_set.root}", "--split", str(tmp_path / "split.json")]
    if change.startswith("loss.group"):
        sets.append("loss.group_dro=0.1")
    words += [word for key in (*sets, change) for word in ("--set", key)]
    assert cli.main(["train", "classifier", "--recipe", "classifier", *words, "--out", str(out)])
    assert complaint in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("distillation.teachers=a, b, a", "distillation.teachers names a twice: name it once"),
        ("source_weights='a=1, b=1, a=2'", "source_weights names a twice: name it once"),
    ],
)
def test_what_is_named_twice_is_refused_of_runs_that_begin(
    data_set, split, tmp_path, monkeypatch, capsys, change, said
):
    """Those of earlier versions go on, and their recipes are read where they are exported."""
    begun = []
    monkeypatch.setattr(loop, "train", lambda recipe, *_, **__: begun.append(recipe) or 1 / 0)
    out = tmp_path / "run"
    words = ["train", "classifier", "--recipe", "classifier", "--set", change, "--out", str(out)]
    words += train_arguments(data_set, split, out, tmp_path)[4:8]
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err
    out.mkdir()
    (out / "run.json").touch()
    with pytest.raises(ZeroDivisionError):
        cli.main(words)
    assert cli.main([*words, "--fresh"]) == 2
    (out / "recipe.toml").write_text(to_toml(begun[0]))
    assert load_recipe(out / "recipe.toml") == begun[0]


def test_a_run_in_the_folder_where_one_stands_keeps_its_caches_beside_it(
    data_set, split, tmp_path, monkeypatch
):
    """Else what it kept there is other files, for which it is refused."""
    places = []

    def refuse(recipe, data_set, split, out, fresh):
        places.append(out)
        raise UserError("enough")

    monkeypatch.setattr(loop, "train", refuse)
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    assert cli.main(train_arguments(data_set, split, ".", tmp_path)) == 2
    assert places == [tmp_path / "run"]


def test_data_without_masks_or_classes_is_refused(data_set, split, tmp_path):
    bare = replace(data_set, records=tuple(replace(r, mask=None) for r in data_set.records))
    with pytest.raises(UserError, match="csv has no masks"):
        loop.train(segmenter(), bare, split, tmp_path / "a")
    one = replace(data_set, records=tuple(replace(r, label="nv") for r in data_set.records))
    with pytest.raises(UserError, match="has only nv"):
        loop.train(classifier(), one, split, tmp_path / "b")
    none = replace(data_set, records=tuple(replace(r, label=None) for r in data_set.records))
    with pytest.raises(UserError, match="has no labels"):
        loop.train(classifier(), none, split, tmp_path / "c")


def test_a_network_of_both_answers_needs_pictures_of_both(data_set, split, tmp_path):
    """Else its decoder stays random, and nothing says so."""
    recipe = load_recipe("multitask", [*TINY, "pretrained=no"])
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    either, damaged = (
        replace(
            data_set,
            records=tuple(replace(r, **(change if i % 2 else {"mask": None})) for i, r in rows),
        )
        for rows in [list(enumerate(data_set.records))]
        for change in ({"label": None}, {"mask": tmp_path / "damaged.png"})
    )
    with pytest.raises(UserError, match="which a multitask network needs"):
        loop.train(recipe, either, split, tmp_path / "a")
    with pytest.raises(UserError, match="none of the masks of the training part could be read"):
        loop.train(recipe, damaged, split, tmp_path / "b")
    # A source of weight 0 is not learnt from.
    drawn = {"csv": {}, "csv.2": {"mask": None}}
    rows = [replace(r, source=key, **drawn[key]) for r in data_set.records for key in drawn]
    two = replace(data_set, records=tuple(replace(r, id=f"{r.source}/{r.id}") for r in rows))
    parts = {"train": tuple(sorted(r.id for r in two.records)), "val": (), "test": ()}
    one_alone = replace(recipe, source_weights="csv=0")
    with pytest.raises(UserError, match="which a multitask network needs"):
        loop._choose(one_alone, two, Split("csv", 0, parts))


def test_what_is_unreadable_but_pictures_without_a_class_is_one_line(data_set, split, tmp_path):
    gone = tmp_path / "gone.png"
    gone.write_bytes(b"no picture")
    bare = without_diagnoses(data_set, ("p00", "p01")).records
    records = (*bare[:2], replace(bare[2], image=gone))
    recipe = classifier("distillation.teachers=x", "distillation.unlabelled=true")
    pictures = load_pictures(records, recipe, tmp_path / "cache")
    with pytest.raises(UserError, match="that can be read are without one"):
        loop._learnable(("mel", "nv"), {"train": pictures, "val": pictures}, None)


def test_folders_without_a_run_are_named(tmp_path, finished):
    with pytest.raises(UserError, match="is no run folder"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"run\.json cannot be used"):
        load_run(tmp_path)
    for wrong in ({"model": "resnet"}, {"model": "mobilenet_v2"}, {"kind": "detector"}):
        replace(load_run(finished), folder=tmp_path, **wrong).save()
        with pytest.raises(UserError, match=r"run\.json cannot be used: there is no \w+ '[\w-]+'"):
            load_run(tmp_path)
    with pytest.raises(UserError, match=r"no best\.pt yet"):
        load_model(replace(load_run(finished), folder=tmp_path))


def test_no_start_from_a_network_that_may_know_the_test_pictures(data_set, split, tmp_path):
    first = loop.train(segmenter("max_steps=1"), data_set, split, tmp_path / "first")
    other = make_split(data_set, seed=5, fractions=(0.6, 0.2, 0.2))
    recipe = segmenter("max_steps=1", f"start={first.folder}")
    with pytest.raises(UserError, match="another split"):
        loop.train(recipe, data_set, other, tmp_path / "second")
    assert not (tmp_path / "second").exists()


# --- what a network may know -------------------------------------------------------------------


def renamed(data_set: DataSet, name: str, pattern: str, folder: Path | None = None) -> DataSet:
    """The same pictures as another data set, with ids as `pattern`, without lesion ids."""
    records = []
    for number, record in enumerate(data_set.records):
        image = record.image
        if folder is not None:
            # Mirrored, and of another size: neither bytes nor names are the same.
            folder.mkdir(exist_ok=True)
            pixels = cv2.resize(read_image(image).pixels[:, ::-1], (96, 72))
            image = folder / f"{number}.png"
            write_png(image, pixels)
        fresh = pattern.format(number=number)
        records.append(replace(record, id=fresh, image=image, lesion_id=None, mask=None))
    return replace(data_set, name=name, records=tuple(records))


def textured(folder: Path, count: int = 16, seed: int = 3) -> DataSet:
    """Pictures that no two of which look alike, of two classes."""
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        coarse = rng.integers(60, 230, (8, 8, 3), np.uint8)
        path = folder / f"t{number:02}.png"
        write_png(path, cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC))
        records.append(data_record(f"t{number:02}", path, ("mel", "nv")[number % 2]))
    return DataSet("csv", folder, tuple(records), (), "CC0")


def data_record(name: str, image: Path, label: str) -> Record:
    return Record(id=name, image=image, label=label, malignant=label == "mel")


def split_of(data_set: DataSet, val: slice, test: slice) -> Split:
    """A split with these of the sorted ids in val and test, all others in train."""
    ids = sorted(record.id for record in data_set.records)
    parts = {"val": tuple(ids[val]), "test": tuple(ids[test])}
    used = {name for part in parts.values() for name in part}
    parts["train"] = tuple(name for name in ids if name not in used)
    return Split(data_set.name, 0, parts)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A classifier of archive pictures 12 to 15 of which are its val and test part."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("known")
    pictures = textured(folder)
    data_set = renamed(pictures, "ham10000", "ISIC_{number:07}")
    split = split_of(data_set, slice(12, 14), slice(14, 16))
    run = loop.train(classifier("max_steps=1", "ema=0"), data_set, split, folder / "run")
    return pictures, run


def test_the_ids_of_another_clinics_table_are_no_pictures_of_this_one(known, tmp_path, monkeypatch):
    """Both number their pictures from 0: what the one learnt is not what the other measures."""
    folder = tmp_path / "clinic"
    folder.mkdir()
    mine, theirs = (renamed(one, "csv", "{number}") for one in (known[0], textured(folder, 16, 9)))
    run = shutil.copytree(known[1].folder, tmp_path / "run")
    learnt = split_of(mine, slice(12, 14), slice(14, 16))
    learnt.save(run / "split.json")
    replace(load_run(run), data_set="csv").save()
    recipe, measured = classifier(f"start={run}", "ema=0"), split_of(mine, slice(0, 2), slice(2, 4))
    alone = SimpleNamespace(is_main_process=True)
    pictures = TrainingPictures.from_bytes((run / FILE).read_bytes())
    pictures = replace(pictures, split=bytes.fromhex(learnt.sha256))
    (run / FILE).write_bytes(pictures.to_bytes())
    with pytest.raises(UserError, match="another split of csv, and knows what is to be measured"):
        check_leaks(recipe, mine, measured, tmp_path / "out", alone)
    check_leaks(recipe, theirs, measured, tmp_path / "out", alone)
    # Of several tables it is the one that has the pictures, whatever its place.
    both = join([theirs, mine])
    parts = {part: tuple(f"csv/{n}" for n in names) for part, names in measured.parts.items()}
    check_leaks(recipe, both, Split(both.name, 0, parts), tmp_path / "out", alone)
    parts = {part: tuple(f"csv.2/{n}" for n in names) for part, names in measured.parts.items()}
    monkeypatch.setattr(leaks, "leaks", lambda *_: None)  # by their ids alone
    with pytest.raises(UserError, match=r"lesions or patients \(first: csv\.2/0\)"):
        check_leaks(recipe, both, Split(both.name, 0, parts), tmp_path / "out", alone)


@pytest.mark.parametrize("way", ["start={run}", "start={run}/best.pt"])
def test_no_start_from_a_run_that_knows_the_pictures_of_another_set(known, tmp_path, way):
    pictures, run = known
    other = renamed(pictures, "isic2019", "ISIC_{number:07}_downsampled")
    recipe = classifier("max_steps=1", "ema=0", way.format(run=run.folder))
    for val, test, words in (
        (slice(3, 5), slice(12, 16), "2 of 2 validation pictures (2 by ISIC number"),
        (slice(14, 16), slice(11, 14), "3 of 3 test pictures (3 by ISIC number"),
    ):
        with pytest.raises(UserError) as told:
            loop.train(recipe, other, split_of(other, val, test), tmp_path / "run")
        assert words in str(told.value)
        assert "trained on ham10000" in str(told.value)
        assert "\n" not in str(told.value)
        assert not (tmp_path / "run").exists()


def test_a_teacher_that_knows_the_test_pictures_is_refused_and_a_clean_one_is_not(known, tmp_path):
    pictures, run = known
    other = renamed(pictures, "isic2019", "ISIC_{number:07}")
    recipe = classifier("max_steps=1", "ema=0", f"distillation.teachers={run.folder}")
    with pytest.raises(UserError, match="2 of 2 test pictures"):
        loop.train(recipe, other, split_of(other, slice(14, 16), slice(0, 2)), tmp_path / "a")
    # Its own test part, and its own val part as val: it has learnt from neither.
    clean = split_of(other, slice(12, 14), slice(14, 16))
    assert loop.train(recipe, other, clean, tmp_path / "b").licence == "CC0"


def test_copies_that_only_look_the_same_are_warned_of(known, tmp_path, capsys):
    pictures, run = known
    other = renamed(pictures, "csv", "mine-{number:02}", tmp_path / "mirrored")
    recipe = classifier("max_steps=1", "ema=0", f"start={run.folder}")
    loop.train(recipe, other, split_of(other, slice(12, 14), slice(0, 3)), tmp_path / "run")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1
    assert "3 of 3 test pictures (3 by their look; first: mine-00)" in lines[0]
    # What it started from is known of the new network, too.
    listed = TrainingPictures.from_bytes((tmp_path / "run" / FILE).read_bytes())
    assert len(listed.of("classifier", EARLIER)) == 12
    assert len(listed.of("classifier", TRAIN)) == 11


def test_weights_taken_out_of_their_run_are_refused(known, tmp_path):
    pictures, run = known
    shutil.copy(run.folder / "best.pt", tmp_path / "weights.pth")
    recipe = classifier("max_steps=1", f"start={tmp_path / 'weights.pth'}")
    split = split_of(pictures, slice(12, 14), slice(14, 16))
    with pytest.raises(UserError, match=r"start from the run's folder"):
        loop.train(recipe, pictures, split, tmp_path / "run")


def test_a_split_that_parts_copies_is_warned_of_in_one_line(known, tmp_path, capsys):
    pictures, _ = known
    twin = replace(pictures.records[0], id="twin")
    grown = replace(pictures, records=(*pictures.records, twin))
    loop.train(
        classifier("max_steps=1"),
        grown,
        split_of(grown, slice(12, 14), slice(14, 17)),
        tmp_path / "run",
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1
    assert "parts 1 pairs of copies of one picture (first: t00 ~ twin)" in lines[0]


def test_without_a_split_it_is_that_of_data_check(tmp_path, capsys):
    pictures = textured(tmp_path, 24)
    rows = ["image,diagnosis"]
    for number, record in enumerate(pictures.records):
        shutil.copy(record.image, tmp_path / f"u{number:02}.png")
        rows += [f"{name}{number:02}.png,{record.label}" for name in "tu"]
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "data.csv").write_text("\n".join([*rows, "broken.png,nv"]))
    source = f"csv={tmp_path / 'data.csv'}"
    assert cli.main(["data", "check", source, "--split", str(tmp_path / "s.json")]) == 0
    checked = Split.load(tmp_path / "s.json")
    made = data.default_split(load("csv", tmp_path / "data.csv"), tmp_path / "runs" / "one")
    assert made.sha256 == checked.sha256
    assert all({f"t{n[1:]}", f"u{n[1:]}"} <= set(ids) for ids in made.parts.values() for n in ids)
    assert "1 of 49 pictures cannot be read" in capsys.readouterr().err


# --- classes, caches, other versions -----------------------------------------------------------


def test_a_class_whose_pictures_cannot_be_read_is_no_class(known, tmp_path, capsys):
    pictures, _ = known
    (tmp_path / "broken.png").write_bytes(b"no picture")
    lost = tuple(data_record(f"z{n}", tmp_path / "broken.png", "bkl") for n in range(3))
    seen = data_record("v0", pictures.records[5].image, "bkl")
    grown = replace(pictures, records=(*pictures.records, *lost, seen))
    split = split_of(grown, slice(14, 17), slice(0, 0))  # v0 is in val
    assert "v0" in split.parts["val"]
    run = loop.train(classifier("max_steps=2"), grown, split, tmp_path / "run")
    assert run.labels == ("mel", "nv")
    assert run.pictures == {"train": 14, "val": 2}
    printed = capsys.readouterr().err
    assert "no training picture of bkl can be read" in printed
    assert "1 validation pictures of it are not used" in printed
    assert "3 pictures were left out" in printed


def test_prepared_pictures_are_for_their_owner_alone(data_set, tmp_path):
    before = os.umask(0)
    try:
        load_pictures(data_set.records[:3], segmenter(), tmp_path / "cache")
        modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "cache").rglob("*.*")}
        folders = [tmp_path / "cache", *(p for p in (tmp_path / "cache").iterdir())]
        assert modes == {0o600}
        assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
        # A cache that an older version left open is closed.
        (tmp_path / "cache").chmod(0o755)
        load_pictures(data_set.records[:3], segmenter(), tmp_path / "cache")
        assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


def test_other_code_never_reads_the_pictures_that_this_code_prepared(
    data_set, tmp_path, monkeypatch
):
    first = load_pictures(data_set.records[:3], segmenter(), tmp_path)
    monkeypatch.setattr(data, "code_hash", lambda *_: "of tomorrow")
    monkeypatch.setattr(data, "_read", lambda *_: (np.full((32, 32, 3), 7, np.uint8), 255))
    again = load_pictures(data_set.records[:3], segmenter(), tmp_path)
    assert (again.images == 7).all()
    assert not np.array_equal(first.images, again.images)


@pytest.mark.parametrize("change", ["lacks", "has"])
def test_a_run_of_another_version_is_named_and_left_alone(known, tmp_path, change):
    pictures, run = known
    folder = shutil.copytree(run.folder, tmp_path / "run")
    stored = folder / "run.json"
    content = json.loads(stored.read_text())
    content["versions"]["dermedge"] = "9.9"
    if change == "lacks":
        del content["start"]
    else:
        content["shoes"] = 2
    stored.write_text(json.dumps(content))
    split = Split.load(folder / "split.json")
    archive = renamed(pictures, "ham10000", "ISIC_{number:07}")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    words = r"made by another version of dermedge \(9\.9\): train again, or use that version"
    with pytest.raises(UserError, match=words) as told:
        load_run(folder)
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match=words):
        loop.train(classifier(f"start={folder}"), archive, split, tmp_path / "other")
    with pytest.raises(UserError, match=words):
        loop.train(classifier("max_steps=1", "ema=0"), archive, split, folder)
    assert before == {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_text_files_of_a_run_may_have_a_byte_order_mark_and_no_other_encoding(known, tmp_path):
    _, run = known
    folder = shutil.copytree(run.folder, tmp_path / "run")
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_bytes(text.encode("utf-8-sig"))
    assert load_run(folder).steps == run.steps
    for content in (text.encode("utf-16"), text.replace("CC0", "©").encode("latin-1")):
        (folder / "run.json").write_bytes(content)
        with pytest.raises(UserError, match="save it as UTF-8"):
            load_run(folder)
    for content in ("[]", "{", "null", text[: len(text) // 2], "[" * 99999):
        (folder / "run.json").write_text(content)
        with pytest.raises(UserError, match=r"run\.json cannot be used"):
            load_run(folder)


def test_a_damaged_log_is_one_line(known, tmp_path):
    pictures, run = known
    folder = shutil.copytree(run.folder, tmp_path / "run")
    # Cut off by a full disk: this was step 12.
    (folder / "log.csv").write_text("step,epoch,lr\n1,0,0.1\n1")
    with Log(folder, "classifier", 5, True):
        pass
    assert [row[:8] for row in (folder / "log.csv").read_text().split()[1:]] == ["1,0,0.1,"]
    (folder / "log.csv").write_text("step,epoch,lr\nmany,0,1\n")
    archive = renamed(pictures, "ham10000", "ISIC_{number:07}")
    split = Split.load(folder / "split.json")
    with pytest.raises(UserError, match=r"log\.csv is damaged"):
        loop.train(classifier("max_steps=1", "ema=0"), archive, split, folder)


# --- several data sets ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_sources(data_set, tmp_path_factory) -> list[str]:
    """The lesions above, and a set of squares, some of a class that the first does not have."""
    root = tmp_path_factory.mktemp("more")
    rng = np.random.default_rng(5)
    lines = ["id,image,diagnosis"]
    for number in range(18):
        image = np.uint8((230, 190, 170) + rng.integers(-9, 9, (40, 40, 3)))  # no mask is so
        top = int(rng.integers(6, 20))
        image[top : top + 14, top : top + 14] = (40 + 60 * (number % 3), 60, 50)
        image[:5, : 2 * number + 2] = rng.integers(0, 255, 3)  # no two look alike
        write_png(root / f"s{number:02}.png", image)
        lines.append(f"s{number:02},s{number:02}.png,{('mel', 'nv', 'bcc')[number % 3]}")
    (root / "data.csv").write_text("\n".join(lines) + "\n")
    return ["--data", f"csv={data_set.root}", "--data", f"csv={root}"]


def words(recipe: str, *overrides: str) -> list[str]:
    return [word for item in overrides for word in ("--set", item)] + ["--recipe", recipe]


def test_one_run_learns_from_two_data_sets(two_sources, tmp_path, capsys):
    out = tmp_path / "run"
    options = words(
        "classifier",
        *CLASSIFIER,
        "max_steps=2",
        "loss.balanced=1.0",
        "source_weights=csv.2=3",
        "balanced_sampling=0.5",
        "augmentation.mixup=0.2",
    )
    command = ["train", "classifier", *options, *two_sources, "--out", str(out)]
    assert cli.main(command) == 0, capsys.readouterr().err
    run = load_run(out)
    assert run.data_set == "csv+csv.2"
    assert run.labels == ("bcc", "mel", "nv")
    # Balanced: as if all classes were as frequent.
    assert list(run.prior.values()) == pytest.approx([1 / 3] * 3, abs=1e-5)
    split = Split.load(out / "split.json")
    assert {name.partition("/")[0] for name in split.parts["train"]} == {"csv", "csv.2"}
    # The run's data set is found again by what the run says of it, as export does.
    again = load(run.data_set, run.data_root)
    assert len(again.records) == 38
    # Each source's own part, for `evaluate`.
    own = Split.load(out / "splits" / "csv.2.json")
    assert sum(map(len, own.parts.values())) == 18
    # The joint split is a split to give; and so is one of a single source.
    frozen = ["--split", str(out / "split.json"), "--out", str(tmp_path / "second")]
    assert cli.main([*command, *frozen]) == 0, capsys.readouterr().err
    assert load_run(tmp_path / "second").split_sha256 == run.split_sha256
    capsys.readouterr()
    wrong = ["--split", str(out / "split.json"), "--split", str(out / "splits" / "csv.json")]
    assert cli.main([*command, *wrong, "--out", str(tmp_path / "third")]) == 2
    assert "give it alone, with the --data of those sets in that order" in capsys.readouterr().err
    # Of other sets: refused before pictures are compared.
    other = tmp_path / "other.json"
    Split("ham10000", 0, split.parts).save(other)
    assert cli.main([*command, "--split", str(other), "--out", str(tmp_path / "third")]) == 2
    assert "give one split for each data set, or the joint one" in capsys.readouterr().err


def test_each_table_of_ones_own_takes_its_own_split():
    def numbered(root: str, count: int) -> DataSet:
        records = [Record(id=f"{n}", image=Path(root) / f"{n}.png") for n in range(count)]
        return DataSet("csv", Path(root), tuple(records), (), "")

    short, long = numbered("/a", 3), numbered("/b", 5)
    first, second = (Split("csv", 0, make_split(one).parts) for one in (short, long))
    for given in ([first, second], [second, first]):
        assert _frozen(given, keyed([short, long])) == {"csv": first, "csv.2": second}
    assert _frozen([second], keyed([short, long])) == {"csv.2": second}
    with pytest.raises(UserError, match=r"fits csv and csv\.2.*in their order"):
        _frozen([first], keyed([short, long]))
    # One too many is left over, for the caller to refuse; one of no set here is refused later.
    assert len(_frozen([first, second, second], keyed([short, long]))) == 2
    assert list(_frozen([Split("ph2", 0, {})], keyed([short, long]))) == ["ph2"]


def test_only_pictures_of_a_class_move_what_their_source_does_not_know(
    two_sources, tmp_path, capsys
):
    """Masked: the set without basal cell carcinomas says nothing against them."""
    sets = [load("csv", text.partition("=")[2]) for text in two_sources[1::2]]
    whole = join(sets)
    records = tuple(r for r in whole.records if r.source == "csv" or r.label in ("bcc", "mel"))
    whole = replace(whole, records=records)
    ids = sorted(record.id for record in records)
    parts = {"train": tuple(ids[:-4]), "val": tuple(ids[-4:]), "test": ()}
    recipe = classifier("max_steps=1", "ema=0", "source_weights=csv.2=0", "optimizer.warmup=0.0")
    run = loop.train(recipe, whole, Split(whole.name, 0, parts), tmp_path / "run")
    learner = Learner(
        recipe,
        run.labels,
        load_pictures([r for r in records if r.id in parts["train"]], recipe, tmp_path / "cache"),
        1,
        make_accelerator(recipe),
    )
    before = learner.model.net.head.layers[-1].bias.detach()
    moved = load_model(run).net.head.layers[-1].bias - before
    assert run.labels[0] == "bcc"
    assert "bcc: only sources of weight 0 show it" in capsys.readouterr().err
    assert moved[0].abs() < 1e-6
    assert (moved[1:].abs() > 1e-6).all()
    assert run.prior["bcc"] < 0.01
    # What is never drawn makes no class frequent: moles and melanomas still weigh the same.
    assert run.prior["mel"] == pytest.approx(run.prior["nv"])


def without_diagnoses(data_set: DataSet, ids: tuple[str, ...]) -> DataSet:
    unsaid = {"diagnosis": None, "label": None, "malignant": None}
    records = (replace(r, **unsaid) if r.id in ids else r for r in data_set.records)
    return replace(data_set, records=tuple(records))


def test_pictures_without_a_diagnosis_learn_from_the_teacher_alone(data_set, split, tmp_path):
    teacher = loop.train(classifier("max_steps=1"), data_set, split, tmp_path / "teacher").folder
    options = [f"distillation.teachers={teacher}", "distillation.unlabelled=true"]
    gone = split.parts["train"][::2]
    partly = without_diagnoses(data_set, gone)
    recipe = classifier("max_steps=2", "loss.label_smoothing=0.1", *options)
    run = loop.train(recipe, partly, split, tmp_path / "run")
    assert run.labels == ("mel", "nv")
    pictures = load_pictures(partly.records, recipe, tmp_path / "cache")
    learner = Learner(recipe, run.labels, pictures, 2, make_accelerator(recipe))
    rows = [i for i, record in enumerate(pictures.records) if record.id in gone][:4]
    (batch,) = loader(Views(pictures, run.labels, recipe), [[(0, i) for i in rows]], 0)
    losses = learner.update(batch)
    assert losses["cross_entropy"] == 0
    assert losses["distillation"] > 0


@pytest.mark.parametrize("feed", ["loader", "device"])
def test_pictures_without_a_mask_learn_from_the_teacher_alone(data_set, split, tmp_path, feed):
    teacher = loop.train(segmenter("max_steps=1"), data_set, split, tmp_path / "teacher").folder
    gone = (*split.parts["train"][::2], *split.parts["val"][::2])
    records = tuple(replace(r, mask=None) if r.id in gone else r for r in data_set.records)
    partly = replace(data_set, records=records)
    options = [f"distillation.teachers={teacher}", f"augment_on={feed}"]
    recipe = segmenter("max_steps=2", "distillation.unlabelled=true", *options)
    run = loop.train(recipe, partly, split, tmp_path / "run")
    assert run.pictures == {"train": 16, "val": 2}
    pictures = load_pictures(records, recipe, tmp_path / "cache")
    accelerator = make_accelerator(recipe)
    drawn, bare = (
        [row for row, record in enumerate(pictures.records) if (record.id in gone) == without][:2]
        for without in (False, True)
    )

    def losses(recipe, rows: list[int]) -> dict[str, float]:
        learner = Learner(recipe, (), pictures, 1, accelerator)
        steps = [[(0, row) for row in rows]]
        (batch,) = training_batches(pictures, (), recipe, steps, accelerator.device)
        return {name: value.item() for name, value in learner.update(batch).items()}

    parts = ("bce", "jaccard", "l1", "endpoint", "adversarial")
    alone, mixed = losses(recipe, bare), losses(recipe, drawn + bare)
    assert all(alone[name] == 0 for name in parts)
    assert alone["distillation"] > 0
    assert all(mixed[name] > 0 for name in parts)
    # Those without a mask take nothing of what the others are asked for.
    half = segmenter(*options)
    assert mixed["bce"] == pytest.approx(losses(half, drawn)["bce"], rel=0.2)


def test_a_source_without_any_diagnosis_moves_no_class_by_its_labels(data_set, split, tmp_path):
    """Its prior is nobody's: no class is unknown there, and no loss is no number."""
    teacher = loop.train(classifier("max_steps=1"), data_set, split, tmp_path / "teacher").folder
    ids = split.parts["train"]
    half = tuple(ids[::2])
    partly = without_diagnoses(data_set, half)
    records = (replace(r, source="a" if r.id in half else "b") for r in partly.records)
    partly = replace(partly, records=tuple(records))
    options = [f"distillation.teachers={teacher}", "distillation.unlabelled=true"]
    recipe = classifier("max_steps=2", "loss.balanced=1.0", "balanced_sampling=0.5", *options)
    run = loop.train(recipe, partly, split, tmp_path / "run")
    assert sum(run.prior.values()) == pytest.approx(1, abs=1e-4)
    assert all(torch.isfinite(value).all() for value in load_model(run).state_dict().values())


@pytest.mark.parametrize("feed", ["loader", "device"])
def test_where_no_teacher_answers_the_diagnosis_counts_whole(data_set, split, tmp_path, feed):
    teacher = loop.train(classifier("max_steps=1"), data_set, split, tmp_path / "teacher").folder
    records = [replace(r, source="ab"[i % 2]) for i, r in enumerate(data_set.records)]
    ways = (f"augment_on={feed}", "loss.class_balance=0")
    options = (f"distillation.teachers={teacher}", "distillation.weight=0.3")
    recipe, plain = classifier(*ways, *options, "distillation.sources=b"), classifier(*ways)
    pictures = load_pictures(records, recipe, tmp_path / "cache")
    labels, accelerator = ("mel", "nv"), make_accelerator(recipe)

    def losses(recipe, rows: list[int]) -> dict[str, float]:
        learner = Learner(recipe, labels, pictures, 1, accelerator)
        steps = [[(0, row) for row in rows]]
        (batch,) = training_batches(pictures, labels, recipe, steps, accelerator.device)
        return {name: value.item() for name, value in learner.update(batch).items()}

    for rows, left in (([0, 2], 1.0), ([1, 3], 0.7)):
        found = losses(recipe, rows)
        wanted = left * losses(plain, rows)["cross_entropy"]
        assert found["cross_entropy"] == pytest.approx(wanted, rel=1e-4)
        assert (found["distillation"] > 0) == (left < 1)
    with pytest.raises(UserError, match=r"distillation\.sources names b, which has no training"):
        loop.train(recipe, data_set, split, tmp_path / "run")


def test_what_has_no_teacher_or_no_unlabelled_picture_is_refused(data_set, split, tmp_path):
    with pytest.raises(RecipeError, match=r"needs distillation\.teachers"):
        classifier("distillation.unlabelled=true")
    with pytest.raises(RecipeError, match="excludes mixup and cutmix"):
        classifier(
            "distillation.unlabelled=true", "distillation.teachers=x", "augmentation.mixup=0.2"
        )
    with pytest.raises(RecipeError, match=r"excludes distillation\.unlabelled"):
        classifier(
            "distillation.unlabelled=true", "distillation.teachers=x", "distillation.sources=a"
        )
    for make, lacking in ((classifier, "diagnosis"), (segmenter, "mask")):
        recipe = make("distillation.unlabelled=true", "distillation.teachers=x")
        with pytest.raises(UserError, match=f"every training picture of .* has a {lacking}"):
            loop.train(recipe, data_set, split, tmp_path / "run")
