"""The networks of a training run, and all that changes in them from step to step."""

from __future__ import annotations

import copy
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils import deterministic

from dermedge import UserError
from dermedge.evaluation import metrics
from train.augment import mix
from train.average import StartWeights, move_average
from train.data import Pictures, Views, loader
from train.groups import GroupWeights
from train.losses import (
    class_weights,
    classifier_loss,
    discriminator_loss,
    distill,
    distillation_loss,
    paired_loss,
    segmenter_losses,
)
from train.mobilegan import PatchDiscriminator
from train.models import Multitask, Normalized, build_model, complexity
from train.origins import start_network
from train.recipe import ClassifierLoss, MultitaskLoss, Recipe, SegmenterLoss
from train.run import intact, save_content
from train.sources import Priors, priors_of
from train.start import settle_norms
from train.teachers import learnt, moved_by, open_teacher

# Gradients longer than this are shortened: one odd batch must not undo what was learnt.
MAX_GRADIENT = 5.0

# Training pictures that the batch norms of a bundle's network are settled on.
SETTLING = 256

# What chooses best.pt.
SCORE = {"segmenter": "jaccard", "classifier": "auc", "multitask": "mean"}


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
        shares: Sequence[float] | None = None,
    ):
        self.recipe = recipe
        self.accelerator = accelerator
        self.total = total
        self.step = 0
        self.best_scores: dict[str, float] = {}
        self.as_begun = True  # False: a checkpoint's steps learnt by another loss
        _reproducible(recipe, 0, 0)
        try:
            model = build_model(recipe.model, labels, recipe.pretrained, recipe.fields)
        except ValueError as error:
            raise UserError(str(error)) from error
        before = copy.deepcopy(model.state_dict()) if recipe.keep_start else {}
        unsettled, own = False, list[str]()
        if recipe.start:
            unsettled, own = start_network(model, recipe.start, recipe.kind, labels)
        if unsettled:
            settle_norms(model, _some(pictures, labels, recipe))
        self.start: StartWeights | None = None
        if recipe.keep_start:  # of a resumed run they are in the checkpoint
            self.start = StartWeights(model, before, recipe.keep_start, own).to(accelerator.device)
        self.pretrained = model.pretrained
        self.complexity = complexity(model, recipe.preprocessing.size)
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)
        if recipe.freeze:
            try:
                model.early_layers(recipe.freeze).requires_grad_(False)
            except ValueError as error:
                raise UserError(f"freeze = {recipe.freeze}: {recipe.model}: {error}") from error
        if recipe.outline_alone:
            for part in _class_parts(model):
                part.requires_grad_(False)
        self.average = copy.deepcopy(model).to(accelerator.device) if recipe.ema else None
        self.model, self.optimizer = accelerator.prepare(model, _adamw(model, recipe))
        self.critic = self.critic_optimizer = None
        self.labels = labels
        self.priors: Priors | None = None
        self.group_weights: GroupWeights | None = None
        if isinstance(recipe.loss, SegmenterLoss) and recipe.loss.adversarial > 0:
            critic = PatchDiscriminator()
            optimizer = torch.optim.AdamW(
                critic.parameters(), lr=recipe.loss.discriminator_lr, betas=(0.5, 0.999)
            )
            self.critic, self.critic_optimizer = accelerator.prepare(critic, optimizer)
        if isinstance(recipe.loss, ClassifierLoss) and not recipe.outline_alone:
            # By how often they are drawn: what is drawn evenly already is not weighed once more,
            # and what a source of weight 0 shows makes no class or group frequent.
            drawn = np.ones(len(pictures))
            if shares is not None:
                drawn = len(pictures) * np.array(shares)
            found = [record.label for record in pictures.records]
            often, ever = dict.fromkeys(found, 0.0), Counter(found)
            for label, times in zip(found, drawn.tolist(), strict=True):
                often[label] += times
            counts = [often.get(label) or ever[label] for label in labels]
            weights = class_weights(torch.tensor(counts), recipe.loss.class_balance)
            self.class_weights = weights.to(accelerator.device)
            if recipe.loss.group:
                self.group_weights = GroupWeights(recipe.loss, pictures.records, drawn.tolist())
            self._drawn = pictures.records, shares, weights.tolist()
            self.priors = self._weighed_priors()
        if self.start is not None and recipe.start and self.priors is not None:
            # As a teacher it is warned of below.
            warn = (lambda _line: None) if recipe.start in recipe.teachers else self._warn
            moved = moved_by(recipe.start, recipe, labels, self.priors, warn)
            self.start.carry(labels, moved)
        self.teachers = [
            open_teacher(path, recipe, labels, self.priors, self._warn).to(accelerator.device)
            for path in recipe.teachers
        ]
        self.learnt = learnt(recipe, labels)  # the classes that the teachers know, if not all

    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One step of all optimizers on this process's share of a batch; returns the losses.

        "known", bool (N,) on the host, says which masks there are, for masks that lie elsewhere.
        """
        # A seed for each step, not a stored generator: nothing to restore, and exact all the same.
        _reproducible(self.recipe, 1 + self.step, self.accelerator.process_index)
        # Asked before the batch moves: a GPU would be waited for.
        known = batch.get("known")
        if known is None and "mask" in batch:
            known = batch["mask"].amin(dim=(1, 2, 3)) >= 0
        batch = self._moved({name: batch[name] for name in batch.keys() - {"known"}})
        if self.recipe.augmentation.mixes:
            mix(batch, self.recipe.augmentation)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        self._train_mode()
        answer = self._answer(batch)
        mask_logits, class_logits = _both(answer, self.recipe.kind)
        losses: dict[str, Tensor] = {}
        loss, spec = self.recipe.loss, self.recipe.distillation
        if mask_logits is not None and known is not None and isinstance(loss, SegmenterLoss):
            images, masks, share = batch["image"], batch["mask"], self._mask_share(known)
            if not known.all():
                # Without any mask here, all count 0: other processes wait for the same parts.
                rows = known if known.any() else slice(None)
                mask_logits, masks, images = mask_logits[rows], masks[rows].clamp(0), images[rows]
            with self._frozen_critic() as critic:
                parts = segmenter_losses(mask_logits, masks, images, critic, loss)
            losses |= {name: share * value for name, value in parts.items()}
        if self.recipe.outline_alone:
            class_logits = None
        if class_logits is not None and isinstance(loss, ClassifierLoss):
            weight = loss.classification if isinstance(loss, MultitaskLoss) else 1.0
            more = batch.get("prior"), self._by_group(batch), self._share(batch)
            losses["cross_entropy"] = weight * classifier_loss(
                class_logits, batch["classes"], self.class_weights, loss, *more
            )
        if self.teachers:
            distilled = distill(self.taught(batch), spec.temperature)
            answered = batch.get("distilled")
            if answered is None:
                losses = {name: (1 - spec.weight) * value for name, value in losses.items()}
            losses["distillation"] = spec.weight * distillation_loss(
                answer if self.learnt is None else answer[:, self.learnt],
                distilled,
                spec.temperature,
                answered,
            )
        if "paired" in batch:
            lacking = paired_loss(answer, batch["paired"], spec.temperature)
            losses["paired"] = spec.paired_weight * lacking
        self._descend(_sum(losses.values()), self.model, self.optimizer)
        if self.critic is not None and mask_logits is not None:
            made = torch.sigmoid(mask_logits.detach().float())
            judged = discriminator_loss(self.critic, images, masks, made)
            losses["discriminator"] = share * judged
            self._descend(losses["discriminator"], self.critic, self.critic_optimizer)
        self.step += 1
        self._move_average()
        return {name: value.detach() for name, value in losses.items()}

    def taught(self, batch: dict[str, Tensor]) -> list[Tensor]:
        """Each teacher's logits of a batch; those that were kept with its features, if it has them.

        Of a classifier's teachers they are of the classes at `learnt` alone.
        """
        if "taught" in batch:
            return list(batch["taught"].unbind(dim=1))
        images, extra = batch["image"], [batch["metadata"]] if "metadata" in batch else []
        with self.accelerator.autocast():
            return [teacher(images, *extra) for teacher in self.teachers]

    def _answer(self, batch: dict[str, Tensor]):
        metadata = batch.get("metadata")
        if "features" in batch:
            return self.model(batch["features"].float(), metadata, self.recipe.freeze)
        return self.model(batch["image"], metadata)

    def _train_mode(self) -> None:
        self.model.train()
        if self.recipe.freeze:
            # Norms would follow the pictures.
            network = self.accelerator.unwrap_model(self.model)
            network.early_layers(self.recipe.freeze).eval()
        if self.recipe.outline_alone:
            for part in _class_parts(self.accelerator.unwrap_model(self.model)):
                part.eval()

    @property
    def carried(self) -> dict[str, float]:
        """By class, the prior that a classifier's probabilities carry; {} of a segmenter."""
        if self.priors is None:
            return {}
        carried = self._weighed_priors().carried(self.recipe.balanced).tolist()
        return {k: round(v, 6) for k, v in zip(self.labels, carried, strict=True)}

    def batch_priors(self) -> Priors | None:
        """What the loss has to know of each picture's source; None where that is nothing."""
        if self.priors is None or not (self.recipe.balanced or self.priors.partial):
            return None
        return self.priors

    def _weighed_priors(self) -> Priors:
        """How much each class weighs in the loss; with group DRO, by the weights of this step."""
        records, shares, weights = self._drawn
        if self.group_weights is not None:
            drawn = np.ones(len(records)) if shares is None else np.array(shares)
            drawn = drawn * self.group_weights.of_records(records)
            shares = tuple(drawn / drawn.sum())
        return priors_of(records, self.labels, shares, weights)

    def _by_group(self, batch: dict[str, Tensor]) -> Callable[[Tensor], Tensor] | None:
        groups = self.group_weights
        if groups is None:
            return None

        def total(sums: Tensor) -> Tensor:
            # In single precision: some accelerators know no other.
            here = sums.float().to(self.accelerator.device)
            return self.accelerator.reduce(here, "sum").double().cpu()

        # Without a diagnosis there is no loss here: 0 would say that its group is served well.
        shares = batch["group"] * (batch["classes"].sum(dim=1, keepdim=True) > 0)

        def weigh(losses: Tensor) -> Tensor:
            return groups(losses, shares, total).to(losses.device)

        return weigh

    def _share(self, batch: dict[str, Tensor]) -> Tensor | None:
        """What is left of each picture's cross-entropy, (N,), where not all pictures are distilled.

        Where the teachers answer for all, before they take their weight of it: together all three
        weigh 1. None: everything.
        """
        spec = self.recipe.distillation
        others = torch.tensor(spec.weight if self.teachers else 0.0)
        left: Tensor | None = None
        if "distilled" in batch:
            others = spec.weight * batch["distilled"]
            left = 1 - others
        if "paired" in batch:
            answered = batch["paired"].isfinite().any(dim=1)
            # No less than 0 by rounding.
            taken = (spec.paired_weight / (1 - others)).clamp(max=1.0).to(answered.device)
            left = (1 if left is None else left) * (1 - taken * answered)
        return left

    def _mask_share(self, known: Tensor) -> Tensor | float:
        """What the mean over this process's masks weighs: the processes' mean is that over all."""
        count, processes = float(known.sum()), self.accelerator.num_processes
        # Otherwise all pictures of a segmenter have one.
        bare = self.recipe.kind != "segmenter" or self.recipe.distillation.unlabelled
        if processes == 1 or not bare:
            return float(count > 0)
        every = self.accelerator.reduce(torch.tensor(count, device=self.accelerator.device), "sum")
        return count * processes / every.clamp(min=1)

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
            other = "" if self.recipe.amp == "no" else ", or set amp = 'no'"
            raise UserError(
                f"the loss is no longer a number at step {self.step}: lower optimizer.lr{other}"
            )
        return {"lr": self.optimizer.param_groups[0]["lr"], **dict(zip(names, values, strict=True))}

    def eval_model(self) -> nn.Module:
        """What is validated and saved: the averaged weights where there are such, else the newest.

        With `keep_start` the mean of these and of the start's.
        """
        model = self.average
        if model is None:
            model = self.accelerator.unwrap_model(self.model)
        return model if self.start is None else self.start.blended(model)

    def weights(self) -> dict[str, Tensor]:
        return {name: value.cpu() for name, value in self.eval_model().state_dict().items()}

    @torch.no_grad()
    def validate(self, views: Views) -> dict[str, float]:
        """Scores on unchanged pictures, each process doing its share; empty without pictures."""
        model = self.eval_model().eval()
        own = range(self.accelerator.process_index, len(views), self.accelerator.num_processes)
        size = max(1, self.recipe.batch_size // self.accelerator.num_processes)
        batches: list[list[tuple[int | None, int]]]
        batches = [[(None, i) for i in own[at : at + size]] for at in range(0, len(own), size)]
        jaccards, judged = [], []
        for batch in loader(views, batches, self.recipe.workers):
            batch = self._moved(batch)
            extra = (batch["metadata"],) if "metadata" in batch else ()
            # The class's own: Accelerate's on the network computes in the training's precision.
            answer = type(model).forward(model, batch["image"], *extra)
            masks, classes = _both(answer, self.recipe.kind)
            if masks is not None:
                drawn = batch["mask"].cpu().numpy()
                known = drawn.min(axis=(1, 2, 3)) >= 0
                found = metrics.confusion((masks > 0).cpu().numpy()[known], drawn[known] > 0.5)
                jaccards += found.jaccard.tolist()
            if classes is not None:
                probabilities = torch.softmax(classes.float(), dim=1).cpu().numpy()
                truth = batch["classes"].cpu().numpy()
                stated = truth.any(axis=1)
                named = truth[stated].argmax(axis=1).tolist()
                judged += list(zip(probabilities[stated], named, strict=True))
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
        # Classes that stay as they are choose nothing, and not all pictures may have one.
        name = "jaccard" if self.recipe.outline_alone else SCORE[self.recipe.kind]
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
        content["weighed"] = self._weighed()
        save_content(content, path)

    def load(self, path: Path) -> None:
        """UserError where it is damaged, or where its steps learnt by another loss than ours."""
        with intact(path):
            content = torch.load(path, map_location=self.accelerator.device, weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(content[name])
            for name in self._PLAIN:
                setattr(self, name, content[name])
            self.as_begun = self._same_weights(content.get("weighed"))
        if not self.as_begun and self.step < self.total:
            raise UserError(
                f"{path.parent} was begun by a version of dermedge that weighed classes or groups "
                "otherwise: go on with that version, choose another --out, or --fresh to throw "
                "that run away"
            )

    def _weighed(self) -> dict[str, Tensor]:
        """What classes and groups weigh in the loss, from the first step to the last."""
        if self.priors is None:
            return {}
        weighed = {"classes": self.class_weights.cpu()}
        if self.group_weights is not None:
            weighed["groups"] = self.group_weights.static
        return weighed

    def _same_weights(self, before: dict[str, Tensor] | None) -> bool:
        """Whether those of a checkpoint are ours. None: of 0.2.0 and before, which noted none."""
        now = self._weighed()
        if before is None:
            # Where some are drawn more often, those versions weighed them as if they were not.
            evenly = not now or self._drawn[1] is None
            loss = self.recipe.loss
            plain = "groups" not in now and not getattr(loss, "class_balance", 0.0)
            return evenly or plain
        return before.keys() == now.keys() and all(
            one.shape == before[name].shape and torch.allclose(one, before[name].to(one))
            for name, one in now.items()
        )

    def _warn(self, line: str) -> None:
        if self.accelerator.is_main_process:
            print(f"warning: {line}", file=sys.stderr)

    def _parts(self) -> dict:
        unwrap = self.accelerator.unwrap_model
        parts = {"model": unwrap(self.model), "optimizer": self.optimizer}
        if self.average is not None:
            parts["average"] = self.average
        if self.start is not None:
            parts["start"] = self.start
        if self.group_weights is not None:
            parts["groups"] = self.group_weights
        if self.critic is not None:
            parts["critic"] = unwrap(self.critic)
            parts["critic_optimizer"] = self.critic_optimizer
        if self.accelerator.scaler is not None:
            parts["scaler"] = self.accelerator.scaler
        return parts

    def _moved(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch on this process's device; from pinned memory without waiting for it."""
        device = self.accelerator.device
        return {name: value.to(device, non_blocking=True) for name, value in batch.items()}

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

    def _move_average(self) -> None:
        if self.average is None:
            return
        # Young averages forget faster, or the random start would stay in them.
        decay = min(self.recipe.ema, self.step / (self.step + 9))
        move_average(self.average, self.accelerator.unwrap_model(self.model).state_dict(), decay)


def _sum(losses: Iterable[Tensor]) -> Tensor:
    total, *others = losses
    for loss in others:
        total = total + loss
    return total


def _some(pictures: Pictures, labels: tuple[str, ...], recipe: Recipe) -> list[Tensor]:
    """Augmented training pictures, the same for every process, in batches."""
    views = Views(pictures, labels, recipe)
    rng = np.random.default_rng(recipe.seed)
    chosen = rng.permutation(len(views))[:SETTLING]
    batches = [chosen[at : at + 32] for at in range(0, len(chosen), 32)]
    return [
        torch.from_numpy(np.stack([views[0, int(index)]["image"] for index in batch]))
        for batch in batches
    ]


def _class_parts(model: Normalized) -> tuple[nn.Module, nn.Module]:
    """What a multitask network's classes come from."""
    net = model.net
    assert isinstance(net, Multitask)
    return net.trunk, net.head


def _both(answer, kind: str) -> tuple[Tensor | None, Tensor | None]:
    """(mask logits, class logits) of what a network of this kind answers."""
    if kind == "multitask":
        return answer
    return (answer, None) if kind == "segmenter" else (None, answer)


def _adamw(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    learning = [p for p in model.parameters() if p.requires_grad]
    weights = [p for p in learning if p.ndim > 1]
    others = [p for p in learning if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": recipe.optimizer.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.optimizer.lr)


def _reproducible(recipe: Recipe, step: int, rank: int) -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Only a warning: some CUDA kernels have no deterministic form, and those train well too.
    torch.use_deterministic_algorithms(recipe.exact, warn_only=True)
    torch.backends.cudnn.benchmark = not recipe.exact
    # The module's class has it, which its type does not say.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(int(np.random.SeedSequence((recipe.seed, step, rank)).generate_state(1)[0]))
