"""The training loop, and the folder that a run leaves behind."""

from __future__ import annotations

import copy
import csv
import ctypes
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dermedge import UserError, __version__, metrics
from dermedge.datasets.records import DataSet, Record
from dermedge.datasets.split import Split
from dermedge.files import write_atomic
from dermedge.preprocess import Preprocessing
from dermedge.taxonomy import CLASSES
from train.data import (
    Batches,
    Pictures,
    Views,
    load_pictures,
    loader,
    present_labels,
    sampling_shares,
)
from train.losses import (
    class_weights,
    classifier_loss,
    discriminator_loss,
    distillation_loss,
    segmenter_losses,
    teach,
)
from train.mobilegan import PatchDiscriminator
from train.models import MODELS, Normalized, build_model, complexity, start_from
from train.recipe import Augmentation, Recipe, to_toml

LOG_EVERY = 10  # steps
MOST_NOTES = 3  # lines on the split; split.json has them all

# Gradients longer than this are shortened: one odd batch must not undo what was learnt.
MAX_GRADIENT = 5.0

# What chooses best.pt.
SCORE = {"segmenter": "jaccard", "classifier": "auc", "multitask": "mean"}
_MASK_LOSSES = ("bce", "jaccard", "dice", "l1", "endpoint", "adversarial", "discriminator")
_CLASS_SCORES = ("val_auc", "val_balanced_accuracy")
COLUMNS = {
    "segmenter": (*_MASK_LOSSES, "distillation", "val_jaccard"),
    "classifier": ("cross_entropy", "distillation", *_CLASS_SCORES),
    "multitask": (*_MASK_LOSSES, "cross_entropy", "val_jaccard", *_CLASS_SCORES, "val_mean"),
}


class Interrupted(Exception):
    """Training was asked to stop, and did so after saving a checkpoint."""


@dataclass(frozen=True)
class Run:
    """What a run folder says about its network; `run.json`."""

    folder: Path
    kind: str  # one of train.models.KINDS
    model: str
    labels: tuple[str, ...]  # of a classifier, in the order of its outputs
    preprocessing: Preprocessing
    size: int
    data_set: str
    data_root: str
    licence: str
    procedural: bool  # trained on generated pictures
    split_sha256: str
    seed: int
    pretrained: bool  # started from ImageNet weights
    start: str  # the run or file of weights that it started from; "": none
    metadata: tuple[str, ...]  # what the classifier takes beside the picture
    commit: str  # of the code; "-" where it is no checkout
    subset: str | None  # what part of the data set was used; None: all of it
    pictures: dict[str, int]  # how many were in the parts that training used
    parameters: int
    macs: int
    processes: int
    steps: int  # done so far
    planned: int  # steps of the whole run
    finished: bool
    val: dict[str, float]  # of the weights in best.pt
    versions: dict[str, str]

    def save(self) -> None:
        content = asdict(self)
        del content["folder"]
        write_atomic(self.folder / "run.json", json.dumps(content, indent=1) + "\n")


def load_run(path: str | Path) -> Run:
    """Read a run folder. UserError where there is none, or none that can be used."""
    folder = Path(path)
    try:
        content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        content["preprocessing"] = Preprocessing.from_dict(content["preprocessing"])
        for name in ("labels", "metadata"):
            content[name] = tuple(content[name])
        run = Run(folder=folder, **content)
        if run.model not in MODELS or MODELS[run.model].kind != run.kind:
            raise ValueError(f"there is no {run.kind} '{run.model}'")
        return run
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no run folder: it has no run.json") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / 'run.json'} cannot be used: {error}") from error


def load_model(run: Run) -> Normalized:
    """The network with the weights in best.pt, in evaluation mode, on the CPU.

    UserError where best.pt is missing, damaged or of another network.
    """
    path = run.folder / "best.pt"
    if not path.exists():
        raise UserError(f"{run.folder} has no best.pt yet: train on until the first validation")
    with _intact(path):
        model = build_model(run.model, run.labels, metadata=run.metadata)
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


def train(
    recipe: Recipe, data_set: DataSet, split: Split, out: str | Path, *, fresh: bool = False
) -> Run:
    """Train the recipe's network on the split's train part; validate on its val part.

    A run that `out` already holds goes on from its checkpoint, exactly as if it had never
    stopped; `fresh` throws it away instead. Prepared pictures are kept in `cache` beside `out`.

    Raises
    ------
    UserError : the data set lacks masks or labels, ImageNet weights are required and cannot be
        had, or `out` holds another run or a damaged one.
    Interrupted : on Ctrl-C or SIGTERM, after a checkpoint.
    """
    out = Path(out)
    accelerator = _accelerator(recipe)
    if accelerator.device.type == "cpu":
        _keep_memory()
    _open_folder(out, recipe, split, fresh, accelerator)
    labels, chosen = _choose(recipe, data_set, split)
    with accelerator.main_process_first():
        pictures = {
            # Only one process may heal a failed picture: all must see the same ones.
            part: load_pictures(
                records, recipe, out.parent / "cache", retry=accelerator.is_main_process
            )
            for part, records in chosen.items()
        }
    _report_problems(split, pictures, accelerator)

    shares = sampling_shares(pictures["train"].records, recipe.balanced_sampling)
    batches = Batches(len(pictures["train"]), recipe.batch_size, recipe.seed, shares)
    total = recipe.epochs * batches.per_epoch
    total = min(total, recipe.max_steps or total)
    checkpoint = out / "checkpoint.pt"
    resumed = checkpoint.exists()
    # A checkpoint replaces all weights: a resumed run needs no others, and no network.
    start = replace(recipe, pretrained="no", start="") if resumed else recipe
    learner = Learner(start, labels, pictures["train"], total, accelerator)
    if resumed:
        learner.load(checkpoint)
    describe = partial(_describe, recipe, data_set, split, out, labels, pictures, learner)
    if resumed and accelerator.is_main_process:
        # The run may have been killed between its last checkpoint and this.
        describe().save()

    train_views = Views(pictures["train"], labels, recipe)
    val_views = Views(pictures["val"], labels, recipe)
    steps = batches.share(learner.step, total, accelerator.process_index, accelerator.num_processes)
    with (
        _Log(out, recipe.kind, learner.step, accelerator.is_main_process) as log,
        _interruption() as asked,
        tqdm(
            total=total,
            initial=learner.step,
            desc=f"training {recipe.model}",
            unit="step",
            disable=not accelerator.is_main_process,
        ) as bar,
    ):
        for batch in loader(train_views, steps, recipe.workers):
            losses = learner.update(batch)
            step = learner.step
            epoch_ends = step % batches.per_epoch == 0 or step == total
            row = {}
            if epoch_ends or step % LOG_EVERY == 0:
                row = learner.measured(losses)
            if epoch_ends:
                scores = learner.validate(val_views)
                row.update({f"val_{name}": value for name, value in scores.items()})
                bar.set_postfix({name: f"{value:.3f}" for name, value in scores.items()})
                if learner.is_best(scores) and accelerator.is_main_process:
                    _save(learner.weights(), out / "best.pt")
            if row:
                log.write(step, (step - 1) // batches.per_epoch, row)
            stop = _anyone(asked, step, accelerator)
            if epoch_ends or stop or step % recipe.checkpoint_every == 0:
                learner.save(checkpoint)
                if accelerator.is_main_process:
                    describe().save()
            bar.update()
            if stop and step < total:
                raise Interrupted(f"stopped after step {step} of {total}, all of it saved")
    accelerator.wait_for_everyone()
    return load_run(out)


class Learner:
    """The networks and all that changes from step to step; what a checkpoint holds."""

    _PLAIN = ("step", "best_scores", "pretrained")  # beside the parts that have a state_dict

    def __init__(
        self,
        recipe: Recipe,
        labels: tuple[str, ...],
        pictures: Pictures,
        total: int,
        accelerator: Accelerator,
    ):
        self.recipe = recipe
        self.accelerator = accelerator
        self.total = total
        self.step = 0
        self.best_scores: dict[str, float] = {}
        _reproducible(recipe.seed, 0, 0)
        try:
            model = build_model(recipe.model, labels, recipe.pretrained, recipe.fields)
        except ValueError as error:
            raise UserError(str(error)) from error
        if recipe.start:
            _start(model, recipe.start)
        self.teachers = [
            _teacher(path, recipe, labels).to(accelerator.device) for path in recipe.teachers
        ]
        self.pretrained = model.pretrained
        self.complexity = complexity(model, recipe.preprocessing.size)
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(model).to(accelerator.device) if recipe.ema else None
        self.model, self.optimizer = accelerator.prepare(model, _adamw(model, recipe))
        self.critic = self.critic_optimizer = None
        if recipe.kind != "classifier" and recipe.loss.adversarial > 0:
            critic = PatchDiscriminator()
            optimizer = torch.optim.AdamW(
                critic.parameters(), lr=recipe.loss.discriminator_lr, betas=(0.5, 0.999)
            )
            self.critic, self.critic_optimizer = accelerator.prepare(critic, optimizer)
        if recipe.kind != "segmenter":
            counts = [sum(r.label == label for r in pictures.records) for label in labels]
            weights = class_weights(torch.tensor(counts), recipe.loss.class_balance)
            self.class_weights = weights.to(accelerator.device)

    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One step of all optimizers on this process's share of a batch; returns the losses."""
        # A seed for each step, not a stored generator: nothing to restore, and exact all the same.
        _reproducible(self.recipe.seed, 1 + self.step, self.accelerator.process_index)
        batch = {name: value.to(self.accelerator.device) for name, value in batch.items()}
        if self.recipe.augmentation.mixup or self.recipe.augmentation.cutmix:
            mix(batch, self.recipe.augmentation)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self.model.train()
        images = batch["image"]
        given = (images, batch["metadata"]) if "metadata" in batch else (images,)
        answer = self.model(*given)
        mask_logits, class_logits = _both(answer, self.recipe.kind)
        losses = {}
        if mask_logits is not None:
            known = (batch["mask"] >= 0).flatten(1).all(dim=1)
            if not known.all():
                mask_logits, images = mask_logits[known], images[known]
            masks = batch["mask"][known]
            if len(masks):
                with self._frozen_critic() as critic:
                    losses |= segmenter_losses(mask_logits, masks, images, critic, self.recipe.loss)
        if class_logits is not None:
            weight = getattr(self.recipe.loss, "classification", 1.0)
            losses["cross_entropy"] = weight * classifier_loss(
                class_logits, batch["classes"], self.class_weights, self.recipe.loss
            )
        if self.teachers:
            spec = self.recipe.distillation
            taught = teach([teacher(*given) for teacher in self.teachers], spec.temperature)
            losses = {name: (1 - spec.weight) * value for name, value in losses.items()}
            losses["distillation"] = spec.weight * distillation_loss(
                answer, taught, spec.temperature
            )
        self._descend(sum(losses.values()), self.model, self.optimizer)
        if self.critic is not None and len(masks):
            made = torch.sigmoid(mask_logits.detach().float())
            losses["discriminator"] = discriminator_loss(self.critic, images, masks, made)
            self._descend(losses["discriminator"], self.critic, self.critic_optimizer)
        self.step += 1
        self._move_average()
        return {name: value.detach() for name, value in losses.items()}

    def learning_rate(self) -> float:
        """Linear warm-up, then half a cosine down to a hundredth."""
        spec = self.recipe.optimizer
        warmup = spec.warmup * self.total
        if self.step < warmup:
            return spec.lr * (self.step + 1) / (warmup + 1)
        progress = (self.step - warmup) / max(1.0, self.total - warmup)
        return spec.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)

    def measured(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """The losses as numbers, averaged over processes; UserError where training diverged."""
        names = list(losses)
        values = self.accelerator.reduce(torch.stack([losses[n] for n in names]), "mean").tolist()
        if not all(map(math.isfinite, values)):
            raise UserError(
                f"the loss is no longer a number at step {self.step}: lower optimizer.lr, "
                "or set amp = 'no'"
            )
        return {"lr": self.optimizer.param_groups[0]["lr"], **dict(zip(names, values, strict=True))}

    def eval_model(self) -> nn.Module:
        if self.average is not None:
            return self.average
        return self.accelerator.unwrap_model(self.model)

    def weights(self) -> dict[str, Tensor]:
        return {name: value.cpu() for name, value in self.eval_model().state_dict().items()}

    @torch.no_grad()
    def validate(self, views: Views) -> dict[str, float]:
        """Scores on unchanged pictures, each process doing its share; empty without pictures."""
        model = self.eval_model().eval()
        own = range(self.accelerator.process_index, len(views), self.accelerator.num_processes)
        size = max(1, self.recipe.batch_size // self.accelerator.num_processes)
        batches = [[(None, i) for i in own[at : at + size]] for at in range(0, len(own), size)]
        jaccards, judged = [], []
        for batch in loader(views, batches, self.recipe.workers):
            batch = {name: value.to(self.accelerator.device) for name, value in batch.items()}
            extra = (batch["metadata"],) if "metadata" in batch else ()
            masks, classes = _both(model(batch["image"], *extra), self.recipe.kind)
            if masks is not None:
                drawn = batch["mask"].cpu().numpy()
                known = drawn.min(axis=(1, 2, 3)) >= 0
                found = metrics.confusion((masks > 0).cpu().numpy()[known], drawn[known] > 0.5)
                jaccards += found.jaccard.tolist()
            if classes is not None:
                probabilities = torch.softmax(classes.float(), dim=1).cpu().numpy()
                truth = batch["classes"].argmax(dim=1).tolist()
                judged += list(zip(probabilities, truth, strict=True))
        jaccards, judged = gather_object(jaccards), gather_object(judged)
        scores = {"jaccard": float(np.mean(jaccards))} if jaccards else {}
        if judged:
            probabilities, labels = map(np.array, zip(*judged, strict=True))
            predicted, count = probabilities.argmax(axis=1), probabilities.shape[1]
            scores["auc"] = metrics.macro_auc(probabilities, labels)
            scores["balanced_accuracy"] = metrics.balanced_accuracy(predicted, labels, count)
        if self.recipe.kind == "multitask" and {"jaccard", "auc"} <= set(scores):
            scores["mean"] = (scores["jaccard"] + scores["auc"]) / 2
        return {name: value for name, value in scores.items() if math.isfinite(value)}

    def is_best(self, scores: dict[str, float]) -> bool:
        """Whether these are the best scores so far, which they then become."""
        name = SCORE[self.recipe.kind]
        # Written so that a score that cannot be had (no val part, one class) keeps the newest.
        if scores.get(name, math.nan) <= self.best_scores.get(name, -math.inf):
            return False
        self.best_scores = scores
        return True

    def save(self, path: Path) -> None:
        if not self.accelerator.is_main_process:
            return
        content = {name: part.state_dict() for name, part in self._parts().items()}
        content |= {name: getattr(self, name) for name in self._PLAIN}
        _save(content, path)

    def load(self, path: Path) -> None:
        with _intact(path):
            content = torch.load(path, map_location=self.accelerator.device, weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(content[name])
            for name in self._PLAIN:
                setattr(self, name, content[name])

    def _parts(self) -> dict:
        unwrap = self.accelerator.unwrap_model
        parts = {"model": unwrap(self.model), "optimizer": self.optimizer}
        if self.average is not None:
            parts["average"] = self.average
        if self.critic is not None:
            parts["critic"] = unwrap(self.critic)
            parts["critic_optimizer"] = self.critic_optimizer
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler
        return parts

    def _descend(self, loss: Tensor, model: nn.Module, optimizer) -> None:
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(model.parameters(), MAX_GRADIENT)
        optimizer.step()
        optimizer.zero_grad()

    @contextmanager
    def _frozen_critic(self) -> Iterator[nn.Module | None]:
        """The critic without its process group: it judges here, and learns nothing."""
        if self.critic is None:
            yield None
            return
        critic = self.accelerator.unwrap_model(self.critic).requires_grad_(False)
        yield critic
        critic.requires_grad_(True)

    @torch.no_grad()
    def _move_average(self) -> None:
        if self.average is None:
            return
        # Young averages forget faster, or the random start would stay in them.
        decay = min(self.recipe.ema, self.step / (self.step + 9))
        newest = self.accelerator.unwrap_model(self.model).state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(newest[name], 1 - decay)
            else:
                value.copy_(newest[name])


class _Log:
    """log.csv and tensorboard/, without the rows that a resumed run will write again."""

    def __init__(self, out: Path, kind: str, step: int, active: bool):
        self.active = active
        if not active:
            return
        self.columns = ("step", "epoch", "lr", *COLUMNS[kind])
        path = out / "log.csv"
        kept = []
        if path.exists():
            with open(path, newline="") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(kept)
        write_atomic(path, text.getvalue())
        self.file = open(path, "a", newline="")  # noqa: SIM115 (closed by __exit__)
        self.board = SummaryWriter(out / "tensorboard", purge_step=step + 1)

    def write(self, step: int, epoch: int, row: dict[str, float]) -> None:
        if not self.active:
            return
        values = {name: f"{value:.6g}" for name, value in row.items()}
        csv.DictWriter(self.file, self.columns).writerow({"step": step, "epoch": epoch, **values})
        self.file.flush()
        for name, value in row.items():
            self.board.add_scalar(name.replace("val_", "val/"), value, step)

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_) -> None:
        if self.active:
            self.file.close()
            self.board.close()


def mix(batch: dict[str, Tensor], spec: Augmentation) -> None:
    """Mix each picture of a batch and its classes with another one's, in place.

    By mixup or CutMix, as the strengths in `spec` say; by either, where both are above 0. Takes
    its random numbers from torch's generator.
    """
    images, classes = batch["image"], batch["classes"]
    order = torch.randperm(len(images), device=images.device)
    cut = spec.cutmix and (not spec.mixup or torch.rand(()).item() < 0.5)
    alpha = spec.cutmix if cut else spec.mixup
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    if cut:
        size = images.shape[1]
        side = round(size * math.sqrt(1 - share))
        top, left = torch.randint(0, size - side + 1, (2,)).tolist()
        mixed = images.clone()
        window = (slice(None), slice(top, top + side), slice(left, left + side))
        mixed[window] = images[order][window]
        share = 1 - (side / size) ** 2
    else:
        mixed = share * images.float() + (1 - share) * images[order].float()
    batch["image"] = mixed
    batch["classes"] = share * classes + (1 - share) * classes[order]


def _both(answer, kind: str) -> tuple[Tensor | None, Tensor | None]:
    """(mask logits, class logits) of what a network of this kind answers."""
    if kind == "multitask":
        return answer
    return (answer, None) if kind == "segmenter" else (None, answer)


def _start(model: Normalized, path: str) -> None:
    """Take over the weights of a run folder or file. UserError where they do not fit."""
    file = Path(path) / "best.pt" if Path(path).is_dir() else Path(path)
    if not file.exists():
        raise UserError(f"there is no {file} to start from: start names a run folder or a file")
    with _intact(file):
        weights = torch.load(file, map_location="cpu", weights_only=True)
    try:
        kept = start_from(model, weights)
    except ValueError as error:
        raise UserError(f"cannot start from {file}: {error}") from error
    print(f"started from {file}; new: {', '.join(kept) or 'nothing'}", file=sys.stderr)


def _teacher(path: str, recipe: Recipe, labels: tuple[str, ...]) -> Normalized:
    """A trained network to learn from. UserError where its answers mean something else."""
    run = load_run(path)
    if (run.kind, run.labels, run.metadata) != (recipe.kind, labels, recipe.fields):
        raise UserError(f"the teacher {path} is of another kind, or has other labels or metadata")
    if run.preprocessing != recipe.preprocessing:
        raise UserError(f"the teacher {path} was trained with another preprocessing")
    return load_model(run).requires_grad_(False)


def _keep_memory() -> None:
    """Let freed memory stay with this process.

    glibc hands large blocks back to the kernel, which clears each page again at the next step:
    on a processor that costs a third of the training's time and more.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        mmap_max, trim_threshold = -4, -1  # numbers from malloc.h
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _commit() -> str:
    """The commit of this code, '+' behind it where files differ from it; '-' without git."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "-"
    return found.stdout.strip() or "-"


def _accelerator(recipe: Recipe) -> Accelerator:
    # Accelerate takes several processes without a GPU for one each, unless told.
    accelerator = Accelerator(mixed_precision=recipe.amp, cpu=not torch.accelerator.is_available())
    if recipe.amp == "fp16" and accelerator.device.type == "cpu":
        raise UserError("amp = 'fp16' needs a GPU; use --set amp=bf16 or amp=no")
    if recipe.batch_size % accelerator.num_processes:
        raise UserError(
            f"batch_size {recipe.batch_size} cannot be shared by {accelerator.num_processes} "
            "processes: make it a multiple"
        )
    return accelerator


def _reproducible(seed: int, step: int, rank: int) -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Only a warning: some CUDA kernels have no deterministic form, and those train well too.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0]))


def _open_folder(
    out: Path, recipe: Recipe, split: Split, fresh: bool, accelerator: Accelerator
) -> None:
    """Make the run's folder, or check that the one which is there holds this very run."""
    resolved, stored = to_toml(recipe), out / "recipe.toml"
    if out.exists() and any(out.iterdir()) and not stored.exists():
        raise UserError(f"{out} holds other files; choose another folder with --out")
    if not fresh and stored.exists():
        before, now = (set(text.splitlines()) for text in (stored.read_text("utf-8"), resolved))
        if before != now:
            changed = ", ".join(sorted(now - before) or sorted(before - now))
            raise UserError(
                f"{out} holds a run with another recipe (now {changed}): "
                "choose another --out, or --fresh to throw that run away"
            )
        kept = out / "split.json"
        if kept.exists() and Split.load(kept).sha256 != split.sha256:
            raise UserError(
                f"{out} holds a run on another split: choose another --out, or --fresh to throw "
                "that run away"
            )
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if fresh and out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(stored, resolved)
        split.save(out / "split.json")
    accelerator.wait_for_everyone()


def _choose(
    recipe: Recipe, data_set: DataSet, split: Split
) -> tuple[tuple[str, ...], dict[str, list[Record]]]:
    """The labels, and the records of train and val that have what this kind of network learns."""
    parts = {part: split.select(data_set.records, part) for part in ("train", "val")}
    if recipe.kind != "classifier" and not any(r.mask for r in parts["train"]):
        raise UserError(f"{data_set.name} has no masks to train a {recipe.kind} on")
    if recipe.kind == "segmenter":
        parts = {part: [r for r in rs if r.mask is not None] for part, rs in parts.items()}
        return (), parts
    labels = present_labels(parts["train"], CLASSES)
    if len(labels) < 2:
        raise UserError(
            f"a classifier needs two classes at least; the training part of {data_set.name} has "
            + (f"only {labels[0]}" if labels else "no labels")
        )
    return labels, {part: [r for r in rs if r.label in labels] for part, rs in parts.items()}


def _report_problems(split: Split, pictures: dict[str, Pictures], accelerator: Accelerator) -> None:
    if accelerator.is_main_process:
        for line in split.notes[:MOST_NOTES]:
            print(f"note on the split: {line}", file=sys.stderr)
        if len(split.notes) > MOST_NOTES:
            print(f"... and {len(split.notes) - MOST_NOTES} more notes", file=sys.stderr)
        for part in pictures.values():
            for line in part.problems:
                print(f"left out {line}", file=sys.stderr)
    if not len(pictures["train"]):
        raise UserError("none of the training pictures could be read")


def _describe(recipe, data_set, split, out, labels, pictures, learner) -> Run:
    subset = [note for note in split.notes if note.startswith("subset")]
    return Run(
        folder=out,
        kind=recipe.kind,
        model=recipe.model,
        labels=labels,
        preprocessing=recipe.preprocessing,
        size=recipe.preprocessing.size,
        data_set=data_set.name,
        data_root=str(data_set.root),
        licence=data_set.licence,
        procedural=data_set.procedural,
        split_sha256=split.sha256,
        seed=recipe.seed,
        pretrained=learner.pretrained,
        start=recipe.start,
        metadata=recipe.fields,
        commit=_commit(),
        subset=subset[0] if subset else None,
        pictures={part: len(found) for part, found in pictures.items()},
        parameters=learner.complexity.parameters,
        macs=learner.complexity.macs,
        processes=learner.accelerator.num_processes,
        steps=learner.step,
        planned=learner.total,
        finished=learner.step >= learner.total,
        val=learner.best_scores,
        versions={
            "dermedge": __version__,
            **{name: version(name) for name in ("torch", "torchvision", "accelerate")},
        },
    )


def _adamw(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.optimizer.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.optimizer.lr)


def _anyone(asked: list[int], step: int, accelerator: Accelerator) -> bool:
    """Whether any process was asked to stop; all processes get the same answer."""
    if accelerator.num_processes == 1:
        return bool(asked)
    if step % LOG_EVERY:
        return False
    flag = torch.tensor([float(bool(asked))], device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum").item())


@contextmanager
def _interruption() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM instead of dying from them; the second one kills."""
    asked: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in signals]

    def note(number, _frame):
        asked.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in signals:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _intact(path: Path) -> Iterator[None]:
    """Make one line that names the file of whatever torch raises when it meets damage."""
    try:
        yield
    except (OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise UserError(
            f"{path} cannot be read: it is damaged, or of another network "
            f"({type(error).__name__}); train again with --fresh, or take the original"
        ) from error


def _save(content: dict, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())
