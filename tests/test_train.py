"""Training: the picture cache, augmentation, exact resumption, several processes, the command."""

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

import cv2
import numpy as np
import pytest
import torch

from dermedge import UserError, cli
from dermedge.datasets import DataSet, load, make_split
from dermedge.image import read_image, read_mask, write_png
from dermedge.preprocess import prepare
from train import data, loop
from train.data import Batches, Views, augment, load_pictures, loader, subset
from train.losses import class_weights, soft_jaccard_loss
from train.recipe import Augmentation, load_recipe

TINY = ["preprocessing.size=32", "batch_size=4", "checkpoint_every=3", "epochs=2", "workers=0"]
SEGMENTER = [*TINY, "model=mobilegan", "ema=0.9", "loss.adversarial=0.05"]
CLASSIFIER = [*TINY, "model=mobilenet_v3_small", "pretrained=no"]
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
    assert cli.main(arguments) == 2
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


def test_augmentation_moves_picture_and_mask_together():
    mask = np.zeros((64, 64), np.uint8)
    cv2.ellipse(mask, (28, 34), (14, 9), 30, 0, 360, 255, -1)
    image = np.repeat(mask[..., None], 3, axis=2)
    turned = set()
    for seed in range(20):
        spec = replace(Augmentation(), color=0.0, blur=0.0)
        new_image, new_mask = augment(image, mask, spec, np.random.default_rng(seed))
        assert np.array_equal(new_image[..., 0] > 127, new_mask > 0)
        assert set(np.unique(new_mask)) <= {0, 255}
        assert 0.6 < (new_mask > 0).sum() / (mask > 0).sum() < 1.5
        turned.add(new_mask.tobytes())
    assert len(turned) == 20
    same_image, same_mask = augment(image, mask, STILL, np.random.default_rng(0))
    assert np.array_equal(same_image, image)
    assert np.array_equal(same_mask, mask)


def test_colour_changes_leave_the_black_border_and_the_mask_alone():
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:24] = (200, 140, 120)
    mask = np.full((32, 32), 255, np.uint8)
    new_image, new_mask = augment(image, mask, replace(STILL, color=0.4), np.random.default_rng(3))
    assert not new_image[:8].any()
    assert not np.array_equal(new_image, image)
    assert np.array_equal(new_mask, mask)


def test_samples_do_not_depend_on_who_makes_them(data_set, tmp_path):
    recipe = segmenter()
    views = Views(load_pictures(data_set.records, recipe, tmp_path), (), recipe.augmentation, 7)
    plan = list(Batches(20, 4, 7).share(0, 6, 0, 1))
    alone = list(loader(views, plan, workers=0))
    shared = list(loader(views, plan, workers=2))
    for (images, masks), (other_images, other_masks) in zip(alone, shared, strict=True):
        assert images.dtype == torch.uint8
        assert tuple(images.shape) == (4, 32, 32, 3)
        assert tuple(masks.shape) == (4, 1, 32, 32)
        assert torch.equal(images, other_images)
        assert torch.equal(masks, other_masks)
    assert not torch.equal(alone[0][0], alone[5][0])


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


# --- losses ------------------------------------------------------------------------------------


def test_soft_jaccard_is_the_jaccard_index_for_sharp_masks():
    drawn = torch.zeros(1, 1, 32, 32)
    drawn[..., 8:24, 8:24] = 1
    made = torch.zeros(1, 1, 32, 32)
    made[..., 8:24, 16:32] = 1
    assert soft_jaccard_loss(drawn, drawn).item() == pytest.approx(0, abs=1e-6)
    assert soft_jaccard_loss(made, drawn).item() == pytest.approx(1 - 1 / 3, abs=2e-3)
    assert soft_jaccard_loss(torch.zeros_like(drawn), torch.zeros_like(drawn)).item() == 0


def test_class_weights_balance_by_the_asked_degree():
    counts = torch.tensor([80, 20])
    assert class_weights(counts, 0.0).tolist() == [1.0, 1.0]
    full = class_weights(counts, 1.0)
    assert (full * counts).tolist() == pytest.approx([50, 50])
    half = class_weights(counts, 0.5)
    assert (half[1] / half[0]).item() == pytest.approx(2)


# --- runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(data_set, split, tmp_path_factory) -> Path:
    """A segmenter run with everything on, never stopped: 8 steps."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "whole"
    loop.train(segmenter(), data_set, split, out)
    return out


def test_a_run_folder_holds_what_export_needs(data_set, split, finished):
    run = loop.load_run(finished)
    assert (run.kind, run.model, run.labels, run.size) == ("segmenter", "mobilegan", (), 32)
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
    model = loop.load_model(run)
    assert not model.training
    with torch.no_grad():
        logits = model(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    assert tuple(logits.shape) == (1, 1, 32, 32)


def test_a_finished_run_is_not_trained_again(data_set, split, finished):
    before = (finished / "checkpoint.pt").stat().st_mtime_ns
    assert loop.train(segmenter(), data_set, split, finished).finished
    assert (finished / "checkpoint.pt").stat().st_mtime_ns == before


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
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, env=one_core()
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert checkpoint(out)["step"] == 6
    assert loop.load_run(out).steps == 6
    assert cli.main(arguments) == 0
    assert_same(checkpoint(finished), checkpoint(out))
    best = [torch.load(run / "best.pt", weights_only=True) for run in (finished, out)]
    assert_same(*best)
    assert (finished / "log.csv").read_text() == (out / "log.csv").read_text()
    assert loop.load_run(finished).val == loop.load_run(out).val


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
    loop.train(segmenter(), data_set, split, out)
    assert_same(checkpoint(finished), checkpoint(out))
    assert (finished / "log.csv").read_text() == (out / "log.csv").read_text()


def test_a_run_killed_before_its_last_note_can_be_finished(data_set, split, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "run")
    whole = loop.load_run(out)
    (out / "run.json").unlink()
    assert loop.train(segmenter(), data_set, split, out) == whole
    replace(whole, steps=6, finished=False, val={}).save()
    assert loop.train(segmenter(), data_set, split, out) == whole


def test_a_resumed_run_needs_no_imagenet_weights_and_remembers_them(
    data_set, split, tmp_path, monkeypatch, capsys
):
    from torchvision.models import mobilenet_v3_small

    def refuse(*_args, **_kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    recipe = classifier("pretrained=required", "max_steps=2")
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
        loop.load_model(loop.load_run(out))


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


def test_fresh_starts_again_but_never_deletes_other_files(data_set, split, tmp_path):
    out = tmp_path / "run"
    short = classifier("max_steps=2")
    loop.train(short, data_set, split, out)
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
    assert (other / "chapter.txt").read_text() == "kept"


def test_without_an_adversarial_weight_there_is_no_discriminator(data_set, split, tmp_path):
    recipe = segmenter("loss.adversarial=0", "ema=0", "max_steps=1")
    loop.train(recipe, data_set, split, tmp_path / "run")
    kept = checkpoint(tmp_path / "run")
    assert set(kept) == {"model", "optimizer", "step", "best_scores", "pretrained"}


def test_mixed_precision_and_channels_last_train(data_set, split, tmp_path):
    arguments = train_arguments(data_set, split, tmp_path / "run", tmp_path)
    arguments += ["--set", "amp=bf16", "--set", "channels_last=true", "--set", "max_steps=2"]
    # In a process of its own: Accelerate keeps one precision for a process's life.
    command = [sys.executable, "-m", "dermedge.cli", *arguments]
    done = subprocess.run(command, capture_output=True, env=one_core())
    assert done.returncode == 0, done.stderr.decode()
    assert checkpoint(tmp_path / "run")["step"] == 2


@pytest.mark.parametrize(
    ("recipe", "part"),
    [
        (segmenter("epochs=10", "optimizer.lr=3e-3"), "jaccard"),
        (classifier("epochs=10", "optimizer.lr=3e-3"), "cross_entropy"),
    ],
    ids=["segmenter", "classifier"],
)
def test_the_loss_falls_where_the_task_is_easy(data_set, split, tmp_path, recipe, part):
    loop.train(replace(recipe, augmentation=STILL), data_set, split, tmp_path / "run")
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        losses = [float(row[part]) for row in csv.DictReader(file)]
    assert losses[-1] < 0.7 * losses[0]


TWO = """
import json, sys
from pathlib import Path
import torch
from accelerate.utils import gather_object
from dermedge import cli
from train import loop
made = []
class Watched(loop.Learner):
    def __init__(self, *args):
        super().__init__(*args)
        made.append(self)
    def update(self, images, targets):
        self.seen = getattr(self, "seen", 0) + len(images)
        return super().update(images, targets)
loop.Learner = Watched
status = cli.main(sys.argv[2:])
learner = made[0]
rank = learner.accelerator.process_index
weights = [p.detach().double().sum().item() for p in learner.model.parameters()]
weights += [p.detach().double().sum().item() for p in learner.critic.parameters()]
found = gather_object([{"rank": rank, "seen": learner.seen, "weights": weights}])
if rank == 0:
    Path(sys.argv[1]).write_text(json.dumps(found))
torch.distributed.destroy_process_group()
sys.exit(status)
"""


def test_two_processes_train_one_network(data_set, split, finished, tmp_path):
    script, out = tmp_path / "two.py", tmp_path / "run"
    script.write_text(TWO)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    arguments = train_arguments(data_set, split, out, tmp_path)
    done = subprocess.run(
        [*launch, "--nproc-per-node", "2", str(script), str(tmp_path / "found.json"), *arguments],
        capture_output=True,
        env=one_core(),
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads((tmp_path / "found.json").read_text())
    assert [entry["rank"] for entry in found] == [0, 1]
    assert found[0]["weights"] == found[1]["weights"]
    # Half of every batch each; as many steps as one process takes.
    assert [entry["seen"] for entry in found] == [16, 16]
    run = loop.load_run(out)
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


def test_folders_without_a_run_are_named(tmp_path, finished):
    with pytest.raises(UserError, match="is no run folder"):
        loop.load_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"run\.json cannot be used"):
        loop.load_run(tmp_path)
    for wrong in ({"model": "resnet"}, {"model": "mobilenet_v2"}, {"kind": "detector"}):
        replace(loop.load_run(finished), folder=tmp_path, **wrong).save()
        with pytest.raises(UserError, match=r"run\.json cannot be used: there is no \w+ '\w+'"):
            loop.load_run(tmp_path)
    with pytest.raises(UserError, match=r"no best\.pt yet"):
        loop.load_model(replace(loop.load_run(finished), folder=tmp_path))
