"""Teachers that see another picture of the same lesion: that of the other modality.

A dermoscopic picture shows more of a lesion than a photograph does. The network that learns from
the photograph also learns what a network for dermoscopic pictures makes of the other one
(cross-modal distillation: Gupta et al., CVPR 2016; Lopez-Paz et al., ICLR 2016). That answer does
not depend on the learner's view, so it is computed once, and costs a step nothing.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.fx.experimental.optimization import fuse
from tqdm import tqdm

from dermedge import UserError
from dermedge.code_hash import code_hash
from dermedge.data.records import DataSet, Record
from dermedge.data.split import Split
from dermedge.evaluation.provenance import usable_cores
from dermedge.files import make_private
from dermedge.image.header import ImageError
from dermedge.image.preprocess import Preprocessing
from dermedge.metadata import encode
from train.cache_key import add_files, add_weights
from train.data import memory_mapped
from train.losses import distill
from train.models import Normalized
from train.origins import origin
from train.prepare import read_prepared
from train.recipe import Recipe
from train.sources import Priors
from train.teachers import known_by_all, moved_by

OTHER = {"clinical": "dermoscopic", "dermoscopic": "clinical"}

_WAITING, _READY, _FAILED = 0, 1, 2
_CHUNK = 32  # pictures in one pass
_VIEWS = 8  # of each picture: four turns, plain and mirrored


def partners(
    records: Sequence[Record], data_set: DataSet, split: Split, modality: str
) -> dict[str, list[Record]]:
    """By id of a training picture, its lesion's training pictures of the other modality.

    Pictures without one are left out. UserError where none has one, or where the split has the two
    in different parts.
    """
    by_lesion: dict[str, list[Record]] = defaultdict(list)
    part_of: dict[str, str] = {}
    for part in split.parts:
        for record in split.select(data_set.records, part):
            if record.modality == OTHER[modality] and record.lesion_id is not None:
                by_lesion[record.lesion_id].append(record)
                part_of[record.id] = part
    found = {}
    for record in records:
        others = by_lesion.get(record.lesion_id or "", [])
        if apart := [other.id for other in others if part_of[other.id] != "train"]:
            raise UserError(
                "the split parts pictures of one lesion (first: {one} ~ {other}): make it again "
                "with `dermedge data check`",
                code="train.torn",
                one=record.id,
                other=apart[0],
            )
        if others:
            found[record.id] = others
    if not found:
        raise UserError(
            "distillation.paired: no {modality} training picture of {data_set} has a {other} "
            "picture of the same lesion; leave it out",
            code="train.unpaired",
            modality=modality,
            other=OTHER[modality],
            data_set=data_set.name,
        )
    return found


def paired_answers(
    recipe: Recipe,
    labels: Sequence[str],
    records: Sequence[Record],
    others: Mapping[str, Sequence[Record]],
    priors: Priors,
    folder: Path,
    accelerator: Accelerator,
) -> dict[str, np.ndarray]:
    """By id of each training picture, what `recipe.paired` make of its `others`, see `partners`.

    float32 (K,): the mean of their softened probabilities over the classes that they know, moved to
    the prior here as other teachers' are; NaN at the others, and all over where there is no other
    picture. Each answer is the mean probability over eight views of the picture, and over the
    pictures where a lesion has several. They are kept in `folder`. The terminal says how many
    pictures have one.
    """

    def say(line: str) -> None:
        if accelerator.is_main_process:
            print(line, file=sys.stderr)

    here = [record.id for record in records]
    shown = {other.id: other for name in here for other in others.get(name, ())}
    seen = [shown[name] for name in sorted(shown)]
    shared = known_by_all([origin(path).labels(recipe.kind) for path in recipe.paired], labels)
    if len(shared) < 2:
        raise UserError(
            f"distillation.paired: of the classes that are learnt here {recipe.paired[0]} knows "
            f"{shared[0] if shared else 'none'}, which says nothing"
        )
    logits, readable = [], np.ones(len(seen), bool)
    for path in recipe.paired:
        theirs, kept = _kept_answers(path, recipe, seen, folder, accelerator)
        by = moved_by(path, recipe, labels, priors, lambda line: say(f"warning: {line}"))
        order = [theirs.index(label) for label in shared]
        logits.append(kept[:, order] + np.array([by[label] for label in shared], np.float32))
        readable &= np.isfinite(kept).all(axis=1)
    row_of = {record.id: row for row, record in enumerate(seen) if readable[row]}
    known = [labels.index(label) for label in shared]
    answers = {name: np.full(len(labels), np.nan, np.float32) for name in here}
    count = 0
    for name, answer in answers.items():
        rows = [row_of[other.id] for other in others.get(name, ()) if other.id in row_of]
        if rows:
            each = [torch.from_numpy(_mean(one[rows]))[None] for one in logits]
            answer[known] = distill(each, recipe.distillation.temperature)[0].numpy()
            count += 1
    if not count:
        raise UserError(
            f"distillation.paired: no {OTHER[recipe.modality]} picture of a lesion that is learnt "
            "here can be read"
        )
    say(
        f"{count} of {len(here)} training pictures have a {OTHER[recipe.modality]} picture of the "
        f"same lesion, and learn what {', '.join(recipe.paired)} makes of it"
    )
    return answers


def _mean(logits: np.ndarray) -> np.ndarray:
    """Of several pictures of one lesion, (P, S): the log of the mean, (S,)."""
    mean: np.ndarray = np.logaddexp.reduce(logits, axis=0) - np.float32(math.log(len(logits)))
    return mean


@torch.no_grad()
def _kept_answers(
    path: str, recipe: Recipe, records: Sequence[Record], folder: Path, accelerator: Accelerator
) -> tuple[tuple[str, ...], np.ndarray]:
    """A network's classes C, and float32 (N, C), the log of its probabilities, of each picture.

    NaN where a picture cannot be read; the main process tries such pictures again, and says which.
    From the cache in `folder`, where those that are missing are computed.
    """
    source = origin(path)
    model, theirs = source.network(recipe.kind)
    if not records:
        return theirs, np.zeros((0, len(theirs)), np.float32)
    if model.kind != recipe.kind:
        raise UserError(f"distillation.paired: {path} is no {recipe.kind}, but a {model.kind}")
    preprocessing = source.preprocessing(recipe.kind)
    if preprocessing.crop:
        raise UserError(
            f"distillation.paired: {path} sees lesions cropped by their outline, and the other "
            "pictures are not: take a network with preprocessing.crop = 0"
        )
    cache = folder / _key(model, preprocessing, records)
    make_private(folder)
    make_private(cache)
    answers = memory_mapped(cache / "answers.float32", (len(records), len(theirs)), np.float32)
    state = memory_mapped(cache / "state.uint8", (len(records),))
    waiting = np.flatnonzero(
        state != _READY if accelerator.is_main_process else state == _WAITING
    ).tolist()
    if isinstance(model.net.trunk, torch.nn.Sequential):
        # Norms that do not change are folded away, which saves a third of the time.
        model.net.trunk = fuse(model.net.trunk)
    model = model.to(accelerator.device).eval()

    def read(row: int) -> np.ndarray | None:
        try:
            return read_prepared(records[row], preprocessing, masks=False)[0]
        except (ImageError, OSError) as error:
            print(f"left out {records[row].id}: {error}", file=sys.stderr)
            return None

    title = f"what {Path(path).name} makes of the other pictures"
    with (
        ThreadPoolExecutor(usable_cores()) as pool,
        tqdm(total=len(waiting), desc=title, unit="picture", disable=not waiting) as bar,
    ):
        for at in range(0, len(waiting), _CHUNK):
            chunk = waiting[at : at + _CHUNK]
            images = dict(zip(chunk, pool.map(read, chunk), strict=True))
            there = {row: image for row, image in images.items() if image is not None}
            if there:
                answers[list(there)] = _asked(model, there, records, accelerator.device)
            answers.flush()
            # Answers before marks: a picture that is marked is on the disk.
            state[chunk] = [_READY if row in there else _FAILED for row in chunk]
            state.flush()
            bar.update(len(chunk))
    return theirs, np.where((state == _READY)[:, None], answers, np.float32(np.nan))


def _asked(
    model: Normalized,
    images: Mapping[int, np.ndarray],
    records: Sequence[Record],
    device: torch.device,
) -> np.ndarray:
    """The log of the mean probability over all views of each picture, float32 (n, C)."""
    image = torch.from_numpy(np.stack(list(images.values()))).to(device)
    extra: list[Tensor] = []
    if model.metadata:
        rows = [encode(model.metadata, **_metadata(model, records[row])) for row in images]
        extra = [torch.from_numpy(np.stack(rows)).to(device)]
    found = [
        torch.log_softmax(model(torch.rot90(side, turn, (1, 2)), *extra).float(), dim=1)
        for side in (image, image.flip(2))
        for turn in range(_VIEWS // 2)
    ]
    mean = torch.logsumexp(torch.stack(found), dim=0) - math.log(_VIEWS)
    answer: np.ndarray = mean.cpu().numpy()
    return answer


def _metadata(model: Normalized, record: Record) -> dict:
    return {name: getattr(record, name) for name in model.metadata}


def _key(model: Normalized, preprocessing: Preprocessing, records: Sequence[Record]) -> str:
    """The name of the folder of these answers: of all that decides what they are."""
    digest = hashlib.sha256(code_hash("train.prepare", "dermedge.metadata").encode())
    fields = [_metadata(model, record) for record in records]
    digest.update(repr((_VIEWS, preprocessing.to_dict(), model.metadata, fields)).encode())
    add_weights(digest, model)
    add_files(digest, records)
    return "paired-" + digest.hexdigest()[:20]
