"""What a run starts or learns from: a run, a bundle or a file of weights, and what binds it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dermedge import UserError
from dermedge.bundle.bundle import SUFFIX, Bundle, open_bundle, shipped
from dermedge.data.leak import FILE, ROLE_SHIFT, TrainingPictures
from dermedge.image.preprocess import Preprocessing
from train.graphs import bundled_network
from train.models import Normalized
from train.recipe import Recipe
from train.run import Run, intact, load_model, load_run, run_of, training_pictures
from train.start import by_class, start_from


@dataclass(frozen=True)
class Origin:
    """One network to start or learn from. Neither run nor bundle: a bare file of weights."""

    path: str  # as the recipe names it
    run: Run | None = None
    bundle: Bundle | None = None

    @property
    def title(self) -> str:
        """What a run's record calls it: of a bundle, which one of that name it was, too."""
        return self.path if self.bundle is None else f"{self.path}@{self.bundle.sha256[:12]}"

    @property
    def sha256(self) -> str:
        """Of the bundle, of the run's best.pt or of the file of weights; "": there is none."""
        if self.bundle is not None:
            return self.bundle.sha256
        file = Path(self.path) if self.run is None else self.run.folder / "best.pt"
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""

    @property
    def licence(self) -> str:
        """What binds whatever is trained from it; '' where nothing is stated."""
        if self.run is not None:
            return self.run.licence
        return self.bundle.manifest.licence if self.bundle is not None else ""

    @property
    def data_set(self) -> str:
        """The data sets that it learnt from, in words."""
        if self.run is not None:
            return self.run.data_set
        if self.bundle is None:
            return "unknown pictures"
        names = [str(entry.get("data_set")) for entry in self.bundle.manifest.training_data]
        return ", ".join(dict.fromkeys(names)) or "unknown pictures"

    @property
    def prior(self) -> dict[str, float]:
        """By class, the prior that its classifier states; {}: none stated."""
        if self.run is not None:
            return self.run.prior
        entries = self.bundle.manifest.training_data if self.bundle is not None else ()
        stated = (entry.get("prior") for entry in entries)
        found = next((prior for prior in stated if prior), None)
        return {str(k): float(v) for k, v in found.items()} if isinstance(found, dict) else {}

    def pictures(self, kind: str) -> TrainingPictures | None:
        """What it knows of which pictures, as a start of a `kind` of network; None: no list."""
        if self.run is not None:
            has_split = (self.run.folder / "split.json").exists()
            return training_pictures(self.run) if has_split else None
        if self.bundle is None or FILE not in self.bundle.manifest.parts:
            return None
        known = TrainingPictures.from_bytes(self.bundle.part(FILE), f"{self.path}: {FILE}")
        # A bundle's list is of both networks; a network that plays both roles is in both.
        mine = np.uint8(15 << ROLE_SHIFT[_role(kind)])
        kept = known.use & mine > 0
        if not kept.any() and not known.unknown:  # of an older `export --with`
            return None
        return TrainingPictures(known.prints[kept], known.use[kept] & mine, unknown=known.unknown)

    def network(self, kind: str) -> tuple[Normalized, tuple[str, ...]]:
        """The network in evaluation mode, and its classes in order. UserError where there is none.

        Not of a bare file.
        """
        if self.bundle is not None:
            return bundled_network(self.bundle, _role(kind)), self.labels(kind)
        run = self.run or load_run(self.path)
        return load_model(run), run.labels

    def labels(self, kind: str) -> tuple[str, ...]:
        """Its classes in order; () of a segmenter. Not of a bare file."""
        if self.bundle is not None:
            return self.bundle.manifest.labels if _role(kind) == "classifier" else ()
        return (self.run or load_run(self.path)).labels

    def preprocessing(self, kind: str) -> Preprocessing:
        """How its pictures were prepared. Not of a bare file."""
        if self.bundle is not None:
            return self.bundle.manifest.models[_role(kind)].preprocessing
        return (self.run or load_run(self.path)).preprocessing


def origin(path: str) -> Origin:
    """The network at a path: a run's folder or a file in it, a bundle's name or file, weights.

    UserError where a bundle cannot be read, or where a name means two things.
    """
    if path in shipped():
        if (Path(path) / "run.json").exists():
            raise UserError(
                f"'{path}' is a bundle of dermedge, and a run in this folder: write ./{path} for "
                "the run"
            )
        return Origin(path, bundle=open_bundle(path))
    if path.endswith(SUFFIX) and Path(path).exists():
        return Origin(path, bundle=open_bundle(path))
    return Origin(path, run=run_of(path))


def teachers_of(recipe: Recipe) -> dict[str, str]:
    """The networks that a recipe learns from, as it names them, and the hash of each.

    The one that says where pictures are cropped is among them.
    """
    named = filter(None, (*recipe.teachers, *recipe.paired, recipe.crop_by))
    return {path: origin(path).sha256 for path in named}


def origins(recipe: Recipe) -> Iterator[Origin]:
    """The networks that a recipe starts and learns from."""
    for path in filter(None, (recipe.start, *recipe.teachers, *recipe.paired)):
        yield origin(path)


def licence_of(own: str, earlier: list[Origin]) -> str:
    """What binds the weights: the data set's licence, and those of what they build on."""
    stated = [part for text in (own, *(o.licence for o in earlier)) for part in text.split("; ")]
    return "; ".join(dict.fromkeys(filter(None, stated)))


def check_kept_classes(recipe: Recipe, labels: tuple[str, ...]) -> None:
    """UserError unless a network can answer for the classes as its start does, without learning."""
    source = origin(recipe.start)
    kept = f"loss.classification = 0 keeps the classes of {recipe.start}"
    if source.bundle is None and source.run is None:
        raise UserError(f"{kept}, which is a bare file of weights: start from a bundle or a run")
    theirs = source.labels(recipe.kind)
    if not theirs:
        raise UserError(f"{kept}, which has none: start from a classifier")
    if theirs != labels:
        raise UserError(f'{kept}: set classes="{", ".join(theirs)}"')
    network, _ = source.network(recipe.kind)
    if network.metadata != recipe.fields:
        raise UserError(f'{kept}: set metadata="{",".join(network.metadata)}"')
    wanted = source.preprocessing(recipe.kind)
    if wanted.crop:
        raise UserError(
            f"{kept}, which sees lesions cropped by their outline: start from a network of whole "
            "pictures"
        )
    if wanted != recipe.preprocessing:
        raise UserError(f"{kept}: set {settings(wanted, recipe.preprocessing)}")


def settings(wanted: Preprocessing, own: Preprocessing) -> str:
    """What differs, as a recipe and --set write it."""
    theirs, ours = wanted.to_dict(), own.to_dict()
    differing = {key: value for key, value in theirs.items() if value != ours[key]}
    return ", ".join(f"preprocessing.{key}={json.dumps(value)}" for key, value in differing.items())


def start_network(
    model: Normalized, path: str, kind: str, labels: tuple[str, ...]
) -> tuple[bool, list[str]]:
    """Take over the weights at `path`; says on stderr what was new.

    Returns whether its batch norms have to be settled on pictures (`train.start.settle_norms`), and
    the names of the tensors that kept the model's own values. UserError where the weights
    do not fit, or where nobody knows what they learnt from.
    """
    source = origin(path)
    theirs, metadata = labels, model.metadata  # of a bare file nothing else is known
    weights: dict[str, Tensor]
    if source.bundle is not None:
        found, theirs = source.network(kind)
        weights, metadata, name = dict(found.state_dict()), found.metadata, source.title
    else:
        file = Path(path) / "best.pt" if Path(path).is_dir() else Path(path)
        if not file.exists():
            raise UserError(
                f"there is no {file} to start from: start names a run folder, a bundle "
                f"({', '.join(shipped())}, or a {SUFFIX} file) or a file of weights"
            )
        with intact(file):
            weights = dict(torch.load(file, map_location="cpu", weights_only=True))
        if source.run is not None:
            theirs, metadata = source.run.labels, source.run.metadata
        elif {"mean", "std"} <= weights.keys():
            raise UserError(
                f"{file} is the network of a dermedge run without its run.json: which pictures it "
                "learnt from, and their licence, is not known; start from the run's folder"
            )
        name = str(file)
    if metadata != model.metadata:
        weights = {k: v for k, v in weights.items() if not k.startswith("net.head.metadata.")}
    try:
        kept = start_from(model, by_class(model.state_dict(), weights, labels, theirs))
    except ValueError as error:
        raise UserError(f"cannot start from {name}: {error}") from error
    print(_said(name, source, kept, labels, theirs), file=sys.stderr)
    return source.bundle is not None, kept


def _said(
    name: str, source: Origin, kept: list[str], labels: tuple[str, ...], theirs: tuple[str, ...]
) -> str:
    fresh = [tensor for tensor in kept if not tensor.startswith("net.decoder.")]
    if len(fresh) < len(kept):
        fresh.append("the decoder")
    lines = [f"started from {name}; new: {', '.join(fresh) or 'nothing'}"]
    if labels and theirs and labels != theirs and not any("head.layers" in name for name in kept):
        added = ", ".join(label for label in labels if label not in theirs)
        gone = ", ".join(label for label in theirs if label not in labels)
        shared = ", ".join(label for label in labels if label in theirs)
        lines.append(f"classes kept: {shared or 'none'}; new: {added or 'none'}")
        if gone:
            lines.append(f"not among the classes here, and dropped: {gone}")
    if source.licence:
        lines.append(f"its licence binds what is trained from it: {source.licence}")
    return "; ".join(lines)


def _role(kind: str) -> str:
    return "segmenter" if kind == "segmenter" else "classifier"
