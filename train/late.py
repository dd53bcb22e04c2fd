"""Training late layers alone: what the frozen ones make of each picture is computed once.

On two processor cores the early layers of a MobileNetV2 and the augmentation cost most of a step,
and neither changes where those layers keep their weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.optimization import fuse
from torch.utils.data import Dataset
from tqdm import tqdm

from dermedge import UserError
from dermedge.code_hash import code_hash
from dermedge.files import make_private
from train.cache_key import add_files, add_weights
from train.data import Pictures, Views, loader, memory_mapped
from train.learner import Learner
from train.origins import origin
from train.sources import Priors
from train.teachers import Teacher

_CHUNK = 32  # views in one pass
_MARK = 4096  # views between two marks of what is done


class FeatureViews(Dataset):
    """Training samples by (epoch, index), as `Views`, with features in place of the picture.

    "features" float16 (C, h, w), of view `epoch % views` of the picture; "taught" float32 (T, K),
    the logits of each teacher for that very view, where there are teachers.
    """

    def __init__(self, views: Views, features: np.ndarray, taught: np.ndarray | None):
        self.views = views
        self.features = features  # (views, N, C, h, w)
        self.taught = taught  # (views, N, T, K)

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, np.ndarray]:
        epoch, index = key
        view = epoch % len(self.features)
        sample = self.views.without_image(view, index)
        sample["features"] = np.array(self.features[view, index])
        if self.taught is not None:
            sample["taught"] = np.array(self.taught[view, index])
        return sample


class _Early:
    """What is kept of a batch: features (N, C, h, w), and the teachers' logits (N, T, K)."""

    def __init__(self, learner: Learner, image: Tensor):
        self.blocks = learner.recipe.freeze
        self.network = learner.accelerator.unwrap_model(learner.model)
        self.layers: torch.nn.Module = self.network.early_layers(self.blocks)
        # Norms that do not change are folded away, which halves the time. timm's padding depends
        # on the picture's size, and cannot be traced.
        if isinstance(self.network.net.trunk, torch.nn.Sequential):
            self.layers = fuse(self.layers)
        features = self._features(image)
        # A teacher that the network started from has the same early layers, but for rounding.
        self.teachers = [
            (teacher, _shares(teacher, image, self.blocks, features))
            for teacher in learner.teachers
            if isinstance(teacher, Teacher)
        ]

    def __call__(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        image, metadata = batch["image"], batch.get("metadata")
        features = self._features(image)
        answers = [
            teacher(features, metadata, self.blocks) if shares else teacher(image, metadata)
            for teacher, shares in self.teachers
        ]
        return features, torch.stack(answers, dim=1) if answers else features[:, :0]

    def _features(self, image: Tensor) -> Tensor:
        found: Tensor = self.layers(self.network.planes(image))
        return found


def _shares(teacher: Teacher, image: Tensor, blocks: int, features: Tensor) -> bool:
    """Whether a teacher's first blocks make these features of the pictures."""
    try:
        theirs = teacher.early(image, blocks)
    except ValueError:  # another architecture, of fewer blocks
        return False
    if theirs.shape != features.shape:
        return False
    return bool((theirs - features).abs().max() <= 1e-4 * features.abs().max())


@torch.no_grad()
def feature_views(
    learner: Learner,
    pictures: Pictures,
    labels: Sequence[str],
    priors: Priors | None,
    folder: Path,
    paired: Mapping[str, np.ndarray] | None = None,
) -> FeatureViews:
    """The features of `recipe.views` augmented views of each picture, from the cache in `folder`.

    Those that are missing are computed; a call that was stopped goes on where it was. The cache of
    one set of pictures, one augmentation and one set of frozen weights and teachers is one folder,
    which may be deleted at any time. OSError where the disk has no room for it, UserError where
    half precision cannot hold the features.
    """
    recipe, device = learner.recipe, learner.accelerator.device
    views = Views(pictures, labels, recipe, priors, paired)
    network = learner.accelerator.unwrap_model(learner.model).eval()
    (sample,) = loader(views, [[(0, 0)]], 0)
    sample = {name: value.to(device) for name, value in sample.items()}
    early = _Early(learner, sample["image"])
    shapes = [(recipe.views, len(views), *part.shape[1:]) for part in early(sample)]
    cache = Path(folder) / _key(learner, views)
    make_private(cache.parent)
    make_private(cache)
    features = memory_mapped(cache / "features.float16", shapes[0], np.float16)
    taught = None
    if learner.teachers:
        taught = memory_mapped(cache / "taught.float32", shapes[1], np.float32)
    done = memory_mapped(cache / "done.uint8", shapes[0][:2])
    missing: list[tuple[int | None, int]]
    missing = [(int(view), int(index)) for view, index in zip(*np.nonzero(done == 0), strict=True)]
    chunks = [missing[at : at + _CHUNK] for at in range(0, len(missing), _CHUNK)]
    title = f"features of {recipe.views} views, {features.nbytes / 1e6:.0f} MB"
    marked: list[tuple[int | None, int]] = []
    with tqdm(total=len(missing), desc=title, unit="view", disable=not missing) as bar:
        for chunk, batch in zip(chunks, loader(views, chunks, recipe.workers), strict=True):
            batch = {name: value.to(device) for name, value in batch.items()}
            found, answers = early(batch)
            at = tuple(map(list, zip(*chunk, strict=True)))
            features[at] = _halved(found)
            if taught is not None:
                taught[at] = answers.float().cpu().numpy()
            marked += chunk
            if len(marked) >= _MARK or chunk is chunks[-1]:
                # Features before marks: a view that is marked is on the disk.
                features.flush()
                if taught is not None:
                    taught.flush()
                done[tuple(map(list, zip(*marked, strict=True)))] = 1
                done.flush()
                marked = []
            bar.update(len(chunk))
    network.train()
    return FeatureViews(views, features, taught)


def _halved(features: Tensor) -> np.ndarray:
    half: np.ndarray = features.cpu().half().numpy()
    if not np.isfinite(half).all():
        raise UserError(
            "the frozen layers answer with numbers that half precision cannot hold: "
            "set views=0, which keeps none of them"
        )
    return half


def _key(learner: Learner, views: Views) -> str:
    """The name of the folder of these features: of all that decides what they are."""
    recipe = learner.recipe
    digest = hashlib.sha256(code_hash("train.prepare", "train.augment").encode())
    if recipe.crop_by:
        digest.update((code_hash("train.cropped") + origin(recipe.crop_by).sha256).encode())
    # Not all of the recipe: epochs and learning rate do not matter.
    parts = (recipe.seed, recipe.augmentation, recipe.preprocessing, recipe.views, recipe.freeze)
    digest.update(repr(parts).encode())
    records = views.pictures.records
    if recipe.fields:  # teachers hear what is told beside the picture
        metadata = [[getattr(record, name) for name in recipe.fields] for record in records]
        digest.update(repr((recipe.fields, recipe.metadata_dropout, metadata)).encode())
    network = learner.accelerator.unwrap_model(learner.model)
    add_weights(digest, network.early_layers(recipe.freeze))
    for teacher in learner.teachers:
        add_weights(digest, teacher)
    add_files(digest, records, masks=recipe.sees_masks)
    return "late-" + digest.hexdigest()[:20]
