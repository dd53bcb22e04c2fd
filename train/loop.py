"""The training loop."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from dermedge import UserError, __version__
from dermedge.bundle.bundle import shipped
from dermedge.data.leak import FILE
from dermedge.data.records import DataSet, Record, of_modality
from dermedge.data.split import Split
from dermedge.evaluation.provenance import commit
from dermedge.files import write_atomic
from dermedge.taxonomy import CLASSES
from train.data import (
    UNKNOWN,
    Batches,
    Pictures,
    Views,
    load_pictures,
    loader,
    present_labels,
)
from train.feed import Steps, training_batches
from train.groups import GroupWeights
from train.late import feature_views
from train.leaks import check_leaks
from train.learner import Learner
from train.origins import check_kept_classes, licence_of, origin, origins, teachers_of
from train.paired import paired_answers, partners
from train.recipe import ClassifierLoss, Distillation, Recipe
from train.run import (
    Log,
    Run,
    check_folder,
    files_sha256,
    load_run,
    make_folder,
    refuse_other_teachers,
    refuse_other_words,
    said_sha256,
    save_content,
)
from train.sources import is_unlabelled, sampling_shares, source_weights, sources_of

LOG_EVERY = 10  # steps
MOST_NOTES = 3  # lines on the split; split.json has them all


class Interrupted(Exception):
    """Training was asked to stop, and did so after saving a checkpoint."""


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
    Interrupted : on Ctrl-C, SIGTERM or the end of the terminal, after a checkpoint.
    """
    out = Path(out)
    accelerator = make_accelerator(recipe)
    labels, chosen = _choose(recipe, data_set, split)
    # What the recipe asks of them, and of its start, is checked before the folder holds anything.
    if recipe.outline_alone and (fresh or not (out / "run.json").exists()):
        check_kept_classes(recipe, labels)
    sources_of("distillation.sources", recipe.distilled, chosen["train"])
    source_weights(recipe.source_weights, chosen["train"])
    if isinstance(recipe.loss, ClassifierLoss) and recipe.group:
        GroupWeights(recipe.loss, chosen["train"])
    if accelerator.is_main_process:
        for line in _unused(recipe, data_set, split, labels, chosen):
            print(line, file=sys.stderr)
    others = partners(chosen["train"], data_set, split, recipe.modality) if recipe.paired else {}
    needed = _needed(recipe, out, fresh)
    with accelerator.main_process_first():
        known, files = check_leaks(needed, data_set, split, out, accelerator)
    check_folder(out, recipe, split, fresh)
    with accelerator.main_process_first():
        pictures = {
            # Only one process may heal a failed picture: all must see the same ones.
            part: load_pictures(
                records, needed, out.parent / "cache", retry=accelerator.is_main_process
            )
            for part, records in chosen.items()
        }
    _report_problems(split, pictures, accelerator)
    if not recipe.outline_alone:
        labels, pictures = _learnable(labels, pictures, accelerator)
    counts = {part: len({r.id for r in found.records}) for part, found in pictures.items()}
    learnt = {part: found.records for part, found in pictures.items()}
    said, seen = said_sha256(recipe, learnt), files_sha256(recipe, learnt, files, others)
    teachers = teachers_of(needed)
    if not fresh:
        refuse_other_words(out, labels, counts, said, seen)
        refuse_other_teachers(out, teachers)

    weights = source_weights(recipe.source_weights, pictures["train"].records)
    shares = sampling_shares(pictures["train"].records, recipe.balanced_sampling, weights)
    batches = Batches(len(pictures["train"]), recipe.batch_size, recipe.seed, shares)
    total = recipe.epochs * batches.per_epoch
    total = min(total, recipe.max_steps or total)
    checkpoint = out / "checkpoint.pt"
    resumed = checkpoint.exists() and not fresh
    # A checkpoint replaces all weights: a resumed run needs no others, and no network.
    start = replace(needed, pretrained="no", start="") if resumed else recipe
    learner = Learner(start, labels, pictures["train"], total, accelerator, shares)
    if resumed:
        learner.load(checkpoint)
    bound = _bound(recipe, data_set, None if fresh else out, teachers)
    describe = partial(
        _describe,
        recipe,
        data_set,
        split,
        out,
        labels,
        counts,
        said,
        seen,
        learner,
        commit("+"),
        bound,
    )
    val_views = Views(pictures["val"], labels, recipe)
    steps = batches.share(learner.step, total, accelerator.process_index, accelerator.num_processes)
    fed: Iterable[dict[str, Tensor]] = ()
    if learner.step < total:  # a finished run needs none
        fed = _fed(learner, pictures["train"], others, steps, out)
    # Not before all that may be refused is: `fresh` throws a run away.
    held = make_folder(out, recipe, split, fresh, accelerator)
    if accelerator.is_main_process:
        # A resumed run may no longer have what it started from; its list says so still.
        if not (resumed and (out / FILE).exists()):
            write_atomic(out / FILE, known.to_bytes(), private=True)
        if resumed:
            # It may have been killed between its last checkpoint and this.
            now = describe()
            before = load_run(out) if (out / "run.json").exists() else now
            # All steps so far by the code of then, which is what its bundle states.
            code = {name: getattr(before, name) for name in ("commit", "versions", "processes")}
            replace(now, **code).save()
    with (
        held,
        Log(out, recipe.kind, learner.step, accelerator.is_main_process) as log,
        _interruption() as asked,
        tqdm(
            total=total,
            initial=learner.step,
            desc=f"training {recipe.model}",
            unit="step",
            disable=not accelerator.is_main_process,
        ) as bar,
    ):
        for batch in fed:
            losses = learner.update(batch)
            step = learner.step
            epoch_ends = step % batches.per_epoch == 0 or step == total
            row = {}
            if epoch_ends or step % LOG_EVERY == 0:
                row = learner.measured(losses)
            if step == total or step % (batches.per_epoch * recipe.validate_every) == 0:
                scores = learner.validate(val_views)
                row.update({f"val_{name}": value for name, value in scores.items()})
                bar.set_postfix({name: f"{value:.3f}" for name, value in scores.items()})
                if learner.is_best(scores) and accelerator.is_main_process:
                    save_content(learner.weights(), out / "best.pt")
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


def _needed(recipe: Recipe, out: Path, fresh: bool) -> Recipe:
    """What this call needs of the recipe.

    Of a finished run only where its pictures are is noted again: whom it learnt from may be gone,
    and the bundle that placed its crops.
    """
    noted = (out / FILE).exists() and (out / "run.json").exists()
    if fresh or not noted or not load_run(out).finished:
        return recipe
    recipe = replace(recipe, distillation=Distillation())
    if not recipe.crop_by or recipe.crop_by in shipped() or Path(recipe.crop_by).exists():
        return recipe
    return replace(recipe, crop_by="", preprocessing=replace(recipe.preprocessing, crop=0.0))


def _fed(
    learner: Learner,
    pictures: Pictures,
    others: Mapping[str, Sequence[Record]],
    steps: Steps,
    out: Path,
) -> Iterable[dict[str, Tensor]]:
    """The batches of these steps: of pictures, or with `views` of their features."""
    recipe, labels, accelerator = learner.recipe, learner.labels, learner.accelerator
    priors, cache = learner.batch_priors(), out.parent / "cache"
    paired = None
    with accelerator.main_process_first():
        if recipe.paired and learner.priors is not None:
            paired = paired_answers(
                recipe, labels, pictures.records, others, learner.priors, cache, accelerator
            )
        if recipe.views:
            features = feature_views(learner, pictures, labels, priors, cache, paired)
            return loader(features, steps, recipe.workers)
    return training_batches(pictures, labels, recipe, steps, accelerator.device, priors, paired)


def _keep_memory() -> None:
    """Let freed memory stay with this process.

    glibc hands large blocks back to the kernel, which clears each page again at the next step:
    on a processor that costs a third of the training's time and more.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        mmap_max, trim_threshold = -4, -1  # numbers from malloc.h
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def make_accelerator(recipe: Recipe) -> Accelerator:
    """What puts networks and batches on the device. UserError where it cannot do as the recipe."""
    # Accelerate takes several processes without a GPU for one each, unless told.
    accelerator = Accelerator(mixed_precision=recipe.amp, cpu=not torch.accelerator.is_available())
    if recipe.amp == "fp16" and accelerator.device.type == "cpu":
        raise UserError("amp = 'fp16' needs a GPU; use --set amp=bf16 or amp=no")
    if recipe.batch_size % accelerator.num_processes:
        raise UserError(
            f"batch_size {recipe.batch_size} cannot be shared by {accelerator.num_processes} "
            "processes: make it a multiple"
        )
    if accelerator.device.type == "cpu":
        _keep_memory()
        if recipe.amp == "bf16" and not _has_bfloat16() and accelerator.is_main_process:
            print(
                "warning: this processor has no fast bfloat16 (AVX-512): with amp = 'bf16' "
                "training takes many times as long as with --set amp=no",
                file=sys.stderr,
            )
    return accelerator


def _has_bfloat16() -> bool:
    """Whether PyTorch convolves in bfloat16 by oneDNN on this processor, not by plain loops."""
    known = torch.backends.mkldnn.is_available()
    return known and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _choose(
    recipe: Recipe, data_set: DataSet, split: Split
) -> tuple[tuple[str, ...], dict[str, list[Record]]]:
    """The labels, and the records of train and val that have what this kind of network learns."""
    parts = {part: split.select(data_set.records, part) for part in ("train", "val")}
    if recipe.modality:
        parts = {part: of_modality(records, recipe.modality) for part, records in parts.items()}
        if not parts["train"]:
            raise UserError(f"{data_set.name} has no {recipe.modality} picture to learn from")
    if recipe.outlines == "all":
        if not any(record.outlines for record in parts["train"]):
            raise UserError(
                f"outlines = 'all': no training picture of {data_set.name} was outlined by several "
                "people; leave it out"
            )
        # One sample for each that was drawn; validation stays with what is measured by.
        parts["train"] = [
            replace(record, mask=mask)
            for record in parts["train"]
            for mask in (record.outlines or (record.mask,))
        ]
    if recipe.kind != "classifier" and not any(r.mask for r in parts["train"]):
        raise UserError(f"{data_set.name} has no masks to train a {recipe.kind} on")
    if recipe.kind == "segmenter":
        bare = [record for record in parts["train"] if record.mask is None]
        parts = {part: [r for r in rs if r.mask is not None] for part, rs in parts.items()}
        return (), _with_unlabelled(recipe, data_set, parts, bare)
    wanted = [name for name in CLASSES if name in (recipe.wanted or CLASSES)]
    if recipe.outline_alone:
        drawn = [record for record in parts["train"] if record.mask is not None]
        return tuple(wanted), {
            "train": drawn,
            "val": [r for r in parts["val"] if r.mask is not None or r.label in wanted],
        }
    labels = present_labels(parts["train"], wanted)
    if len(labels) < 2:
        raise UserError(
            f"a classifier needs two classes at least; the training part of {data_set.name} has "
            + (f"only {labels[0]}" if labels else "no labels")
        )
    chosen = {part: [r for r in rs if r.label in labels] for part, rs in parts.items()}
    crops_by_masks = recipe.kind == "classifier" and recipe.sees_masks
    if crops_by_masks and not any(record.mask for record in chosen["train"]):
        raise UserError(
            f"preprocessing.crop: no training picture of {data_set.name} has a mask. Set "
            "crop_by=NAME for the segmenter of a bundle to find the lesions, or "
            "preprocessing.crop=0"
        )
    if recipe.kind == "multitask":
        weights = source_weights(recipe.source_weights, chosen["train"])
        drawn = [r for r in chosen["train"] if weights.get(r.source or "", 1.0) > 0]
        if not any(record.mask for record in drawn):
            raise UserError(
                f"no picture of {data_set.name} that is learnt from has both a class and a mask, "
                "which a multitask network needs: train a segmenter and a classifier"
            )
    unlabelled = [record for record in parts["train"] if is_unlabelled(record)]
    return labels, _with_unlabelled(recipe, data_set, chosen, unlabelled)


def _with_unlabelled(
    recipe: Recipe,
    data_set: DataSet,
    chosen: dict[str, list[Record]],
    unlabelled: list[Record],
) -> dict[str, list[Record]]:
    """The records, with those that teachers alone speak of where the recipe asks for them."""
    if not recipe.distillation.unlabelled:
        return chosen
    if not unlabelled:
        has = "mask" if recipe.kind == "segmenter" else "diagnosis"
        raise UserError(
            f"distillation.unlabelled: every training picture of {data_set.name} has a {has}; "
            "leave it out"
        )
    train = sorted([*chosen["train"], *unlabelled], key=lambda record: record.id)
    return {**chosen, "train": train}


def _unused(
    recipe: Recipe,
    data_set: DataSet,
    split: Split,
    labels: tuple[str, ...],
    chosen: dict[str, list[Record]],
) -> Iterator[str]:
    """What of the pictures says nothing to this network, for its user: a line for each kind."""
    placed = {name for names in split.parts.values() for name in names}
    outside = sum(record.id not in placed for record in data_set.records)
    if outside and not _subset_of(split):
        yield f"{outside} of {len(data_set.records)} pictures are in no part of the split, not used"
    if gone := [name for name in recipe.wanted if labels and name not in labels]:
        yield f"no training picture is of {', '.join(gone)}: not a class of this network"
    weights = source_weights(recipe.source_weights, chosen["train"])
    drawn = {r.label for r in chosen["train"] if weights.get(r.source or "", 1.0) > 0}
    if recipe.outline_alone:
        labels = ()
    if never := [name for name in labels if name not in drawn]:
        yield (
            f"{', '.join(never)}: only sources of weight 0 show it; the network has the class, and "
            "learns nothing of it"
        )
    for part, title in (("train", "training"), ("val", "validation")):
        every = of_modality(split.select(data_set.records, part), recipe.modality)
        kept = {record.id for record in chosen[part]}
        left = [record for record in every if record.id not in kept]
        other = Counter(
            record.label
            for record in left
            if labels and record.label and not (recipe.wanted and record.label not in recipe.wanted)
        )
        bare = sum(not labels or record.label is None for record in left)
        whole = sum(record.mask is None for record in chosen[part])
        if recipe.kind == "classifier" and recipe.sees_masks and whole:
            yield (
                f"{whole} of {len(chosen[part])} {title} pictures have no mask: they are not "
                "cropped, but seen whole; crop_by=NAME crops all by the segmenter of a bundle"
            )
        if bare:
            lack = "class" if labels else "mask"
            yield f"{bare} of {len(every)} {title} pictures have no {lack} and are not used"
        if other:
            named = ", ".join(f"{name} {count}" for name, count in other.items())
            yield f"{title} pictures of classes without a training picture, not used: {named}"


def _subset_of(split: Split) -> str | None:
    """What part of the data set `--limit` left, in words; None: all of it."""
    return next((note for note in split.notes if note.startswith("subset")), None)


def _report_problems(split: Split, pictures: dict[str, Pictures], accelerator: Accelerator) -> None:
    if accelerator.is_main_process:
        for line in split.notes[:MOST_NOTES]:
            print(f"note on the split: {line}", file=sys.stderr)
        if len(split.notes) > MOST_NOTES:
            print(f"... and {len(split.notes) - MOST_NOTES} more notes", file=sys.stderr)
        for part in pictures.values():
            for line in part.problems:
                print(f"left out {line}", file=sys.stderr)
            if part.problems:
                print(f"{len(part.problems)} pictures were left out", file=sys.stderr)
    if not len(pictures["train"]):
        raise UserError("none of the training pictures could be read")
    empty, drawn = _masks(pictures["train"])
    if empty and accelerator.is_main_process:
        print(f"{empty} of {drawn} masks of the training part are empty", file=sys.stderr)
    if pictures["train"].masks is not None and not drawn:
        raise UserError("none of the masks of the training part could be read")
    if drawn and empty == drawn:
        raise UserError("all masks of the training part are empty: there is no lesion to learn")


def _masks(pictures: Pictures) -> tuple[int, int]:
    """How many masks are empty, and how many there are."""
    if pictures.masks is None:
        return 0, 0
    masks = [pictures.mask(index) for index in range(len(pictures))]
    drawn = [mask for mask in masks if mask[0, 0] != UNKNOWN]
    return sum(not mask.any() for mask in drawn), len(drawn)


def _learnable(
    labels: tuple[str, ...], pictures: dict[str, Pictures], accelerator: Accelerator
) -> tuple[tuple[str, ...], dict[str, Pictures]]:
    """The classes that have a training picture which can be read, and the pictures of those."""
    if not labels:
        return labels, pictures
    kept = present_labels(pictures["train"].records, labels)
    if len(kept) < 2:
        raise UserError(
            "a classifier needs two classes at least; all training pictures that can be read are "
            + (kept[0] if kept else "without one")
        )
    if gone := [label for label in labels if label not in kept]:
        other = sum(record.label in gone for record in pictures["val"].records)
        if accelerator.is_main_process:
            print(
                f"no training picture of {', '.join(gone)} can be read: not a class of this "
                f"network; {other} validation pictures of it are not used",
                file=sys.stderr,
            )
        pictures = {part: found.only(kept) for part, found in pictures.items()}
    return kept, pictures


@dataclass(frozen=True)
class _Bound:
    """What binds the network by what it starts and learns from."""

    licence: str
    start: str  # the record of it; "": none
    prior: dict[str, float]  # of the classes, where nothing here has moved it
    teachers: dict[str, str]
    # By which code its first steps were learnt, as a run notes it; "", {}: by that of now.
    commit: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


def _bound(recipe: Recipe, data_set: DataSet, out: Path | None, teachers: dict[str, str]) -> _Bound:
    """Of a run in `out` that goes on, as it began: what it started from may be gone by now."""
    if out is not None and (out / "run.json").exists():
        before = load_run(out)
        code = before.commit, before.versions
        return _Bound(
            before.licence, before.start, before.prior, before.teachers or teachers, *code
        )
    source = origin(recipe.start) if recipe.start else None
    earlier = [*origins(recipe), *map(origin, filter(None, [recipe.crop_by]))]
    return _Bound(
        licence_of(data_set.licence, earlier),
        source.title if source else "",
        source.prior if source and recipe.outline_alone else {},
        teachers,
    )


def _describe(
    recipe: Recipe,
    data_set: DataSet,
    split: Split,
    out: Path,
    labels: tuple[str, ...],
    pictures: dict[str, int],
    said: str,
    files: str,
    learner: Learner,
    code: str,
    bound: _Bound,
) -> Run:
    return Run(
        folder=out,
        kind=recipe.kind,
        model=recipe.model,
        labels=labels,
        preprocessing=recipe.preprocessing,
        size=recipe.preprocessing.size,
        data_set=data_set.name,
        data_root=str(data_set.root),
        licence=bound.licence,
        procedural=data_set.procedural,
        split_sha256=split.sha256,
        seed=recipe.seed,
        pretrained=learner.pretrained,
        start=bound.start,
        metadata=recipe.fields,
        commit=_also(bound.commit, code),
        subset=_subset_of(split),
        pictures=pictures,
        said=said,
        files=files,
        teachers=bound.teachers,
        parameters=learner.complexity.parameters,
        macs=learner.complexity.macs,
        processes=learner.accelerator.num_processes,
        steps=learner.step,
        planned=learner.total,
        finished=learner.step >= learner.total,
        val=learner.best_scores,
        prior=bound.prior if recipe.outline_alone or not learner.as_begun else learner.carried,
        versions={
            name: _also(bound.versions.get(name, ""), of_now)
            for name, of_now in {
                "dermedge": __version__,
                **{name: version(name) for name in ("torch", "torchvision", "accelerate")},
            }.items()
        },
    )


def _also(before: str, now: str) -> str:
    """The versions that a run was trained by, one after the other: it may go on under another."""
    return ", ".join(dict.fromkeys([*filter(None, before.split(", ")), now]))


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
    """Collect Ctrl-C, SIGTERM and, where nothing ignores it, SIGHUP instead of dying from them; a
    second one, other than SIGHUP, kills."""
    asked: list[int] = []
    signals = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        signals.append(hangup)
    before = [signal.getsignal(number) for number in signals]

    def note(number, _frame):
        asked.append(number)
        # Where a terminal is closed, shell and kernel each send a SIGHUP.
        signal.signal(number, signal.SIG_IGN if number == hangup else signal.SIG_DFL)

    for number in signals:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
