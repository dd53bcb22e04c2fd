"""Recipes: TOML files read into typed, checked, frozen dataclasses."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from dermedge import UserError
from dermedge.data.groups import SCALES
from dermedge.files import read_text
from dermedge.image.preprocess import Preprocessing
from dermedge.metadata import FIELDS
from dermedge.taxonomy import CLASSES
from train.models import MODELS
from train.sources import parsed_weights

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class RecipeError(ValueError):
    """A recipe that cannot be followed: one line that names the key and what it may be."""


def _number(default, low: float, high: float):
    return field(default=default, metadata={"range": (low, high)})


def _choice(default: str, *choices: str):
    return field(default=default, metadata={"choices": choices})


def _listed(text: str) -> tuple[str, ...]:
    """The names in a text that parts them by commas."""
    return tuple(filter(None, map(str.strip, text.split(","))))


@dataclass(frozen=True)
class Optimizer:
    """AdamW, with a linear warm-up and then half a cosine down to a hundredth of `lr`."""

    lr: float = _number(1e-3, 1e-7, 1.0)  # the highest learning rate
    weight_decay: float = _number(1e-2, 0.0, 1.0)  # for weights; never for norms and biases
    warmup: float = _number(0.05, 0.0, 0.5)  # share of all steps


@dataclass(frozen=True)
class SegmenterLoss:
    """Weights of the parts of a segmenter's loss; 0 leaves a part out."""

    bce: float = _number(1.0, 0.0, 100.0)  # binary cross-entropy of each pixel
    jaccard: float = _number(1.0, 0.0, 100.0)  # soft Jaccard of each picture
    dice: float = _number(0.0, 0.0, 100.0)  # soft Dice of each picture
    l1: float = _number(0.0, 0.0, 100.0)  # mean absolute difference of probability and mask
    endpoint: float = _number(0.0, 0.0, 100.0)  # difference of their gradients: the outline
    adversarial: float = _number(0.0, 0.0, 10.0)  # deceiving the patch discriminator
    discriminator_lr: float = _number(2e-4, 1e-7, 1.0)  # only where adversarial > 0


@dataclass(frozen=True)
class ClassifierLoss:
    """Cross-entropy, or with `focal` > 0 the focal loss."""

    label_smoothing: float = _number(0.05, 0.0, 0.5)  # share of the target spread over all classes
    class_balance: float = _number(0.5, 0.0, 1.0)  # 0: as frequent; 1: every class weighs the same
    focal: float = _number(0.0, 0.0, 10.0)  # exponent that makes easy pictures count less
    # Share of the classes' prior, each source's own, that the loss takes out (balanced softmax):
    # with 1 the network answers as if all classes were as frequent.
    balanced: float = _number(0.0, 0.0, 1.0)
    # Which groups of people shall be equally well served, see `train.groups`; "": none is asked.
    group: str = _choice("", "", *SCALES)
    group_balance: float = _number(0.0, 0.0, 1.0)  # 0: as frequent; 1: every group weighs the same
    # Step of the weights that move to the groups with the largest loss (group DRO); 0: they stay.
    group_dro: float = _number(0.0, 0.0, 1.0)


@dataclass(frozen=True)
class MultitaskLoss(ClassifierLoss, SegmenterLoss):
    """Both, for one network that gives mask and class."""

    # Weight of the class part. 0: trunk and classes keep the weights of `start`, and the decoder
    # alone learns, outlines.
    classification: float = _number(1.0, 0.0, 100.0)


@dataclass(frozen=True)
class Distillation:
    """Learning from networks that are trained already (Hinton et al., arXiv:1503.02531).

    The teachers see the same augmented view as the learner (Beyer et al., CVPR 2022), those in
    `paired` another picture of the lesion (`train.paired`); several are averaged.
    """

    # Run folders, bundles' names or files, separated by commas; none: the data set alone.
    teachers: str = ""
    weight: float = _number(0.5, 0.0, 1.0)  # of the teachers' answer, against the data set's
    temperature: float = _number(2.0, 0.1, 20.0)  # softens both answers
    # Data sets, separated by commas, for whose pictures the teachers answer; of the others the
    # diagnosis counts alone. None: for all.
    sources: str = ""
    # Training pictures without a diagnosis, of a segmenter without a mask, are learnt from as well,
    # by the teachers' answer alone.
    unlabelled: bool = False
    # Networks, named as teachers are, that see another picture of the same lesion: that of the
    # other modality than the recipe's `modality`, where there is one.
    paired: str = ""
    paired_weight: float = _number(0.3, 0.0, 1.0)  # of their answer, beside `weight`


@dataclass(frozen=True)
class Augmentation:
    """What each picture may undergo; a lesion has no upright side, so all turns are allowed."""

    flip: bool = True  # mirror left-right and top-bottom, each with probability 1/2
    rotation: float = _number(180.0, 0.0, 180.0)  # degrees, to either side
    scale: float = _number(0.15, 0.0, 0.9)  # 0.2: 0.8 to 1.25 times
    shift: float = _number(0.05, 0.0, 0.5)  # share of the side, to any direction
    color: float = _number(0.15, 0.0, 1.0)  # strength of brightness, contrast and channel gains
    blur: float = _number(0.1, 0.0, 1.0)  # probability of a slight blur
    constancy: float = _number(0.0, 0.0, 1.0)  # probability of shades-of-gray colour constancy
    hair: float = _number(0.0, 0.0, 1.0)  # probability of drawn hair
    erase: float = _number(0.0, 0.0, 1.0)  # probability of a rectangle filled with noise
    mixup: float = _number(0.0, 0.0, 10.0)  # alpha of mixup (Zhang et al., ICLR 2018)
    cutmix: float = _number(0.0, 0.0, 10.0)  # alpha of CutMix (Yun et al., ICCV 2019)

    @property
    def mixes(self) -> bool:
        """Whether two pictures become one."""
        return bool(self.mixup or self.cutmix)


@dataclass(frozen=True)
class Acceptance:
    """What a smaller precision must be shown to reach at export, or it stays out of the bundle.

    The lower bound of the 95 % interval must reach each of these; 0 asks for nothing.
    `export.validation.compare` says why they are what they are.
    """

    retained: float = _number(0.99, 0.0, 1.0)  # share of FP32's AUC, balanced accuracy, Jaccard
    sensitivity: float = _number(0.95, 0.0, 1.0)  # share of FP32's own at "see a doctor"
    triage: float = _number(0.985, 0.0, 1.0)  # share of pictures with FP32's own triage
    speedup: float = _number(1.0, 0.0, 100.0)  # times as fast as FP32; the interval lies above


@dataclass(frozen=True)
class Recipe:
    """All that a training run is made of, but the pictures."""

    name: str
    model: str  # a key of train.models.MODELS
    preprocessing: Preprocessing
    optimizer: Optimizer
    loss: SegmenterLoss | ClassifierLoss | MultitaskLoss
    augmentation: Augmentation
    distillation: Distillation
    acceptance: Acceptance
    epochs: int = _number(30, 1, 10_000)
    max_steps: int = _number(0, 0, 100_000_000)  # stop there even within an epoch; 0: no limit
    batch_size: int = _number(16, 1, 4096)  # over all processes together
    seed: int = _number(0, 0, 2**31 - 1)
    pretrained: str = _choice("no", "no", "imagenet", "required")  # "required": or else an error
    # To start from instead: a bundle of dermedge by its name ("dermoscopy"), a .dermbundle file, a
    # run folder, or a file of ImageNet weights.
    start: str = ""
    # Share of the start's weights in those that are validated and saved (WiSE-FT, see
    # `train.average`): less of what it knew before is forgotten.
    keep_start: float = _number(0.0, 0.0, 0.95)
    # Blocks of a classifier's trunk that keep the weights of `start`: the late layers learn alone.
    freeze: int = _number(0, 0, 100)
    # With `freeze`: augmented views of each picture whose frozen features are computed once, and
    # kept beside the run; each epoch learns from the next one. 0: new views, new features.
    views: int = _number(0, 0, 1000)
    classes: str = ""  # "mel,nv,bkl": what a classifier tells apart; "": all that occur
    # Pictures of this kind alone, of data sets that say which are; "": all.
    modality: str = _choice("", "", "dermoscopic", "clinical")
    # What a segmenter learns from where several people outlined a lesion: "agreed", the one mask
    # that is measured by, where there is one; "all", what each of them drew, a sample for each.
    outlines: str = _choice("agreed", "agreed", "all")
    # With `preprocessing.crop`: the bundle, by its name or file, whose segmenter says where the
    # lesion is, as on the device; "": drawn masks do, and pictures without one are seen whole.
    crop_by: str = ""
    balanced_sampling: float = _number(0.0, 0.0, 1.0)  # 0: as frequent; 1: all classes as often
    # With several data sets: "ham10000=1, milk10k=0.5", how often each picture of one is drawn.
    source_weights: str = ""
    metadata: str = ""  # what a classifier takes beside the picture: "age", "age,sex,site", ...
    metadata_dropout: float = _number(0.3, 0.0, 1.0)  # share of the values hidden in training
    ema: float = _number(0.0, 0.0, 0.99999)  # decay of the averaged weights; 0: none
    amp: str = _choice("no", "no", "fp16", "bf16")  # mixed precision
    channels_last: bool = False  # memory layout; faster on most GPUs and processors
    workers: int = _number(0, 0, 128)  # loader processes in each training process
    # Where training pictures are augmented: "loader", one by one in the loader's processes, or
    # "device", whole batches where the network is. Other random numbers, the same distribution.
    augment_on: str = _choice("loader", "loader", "device")
    # GB of a GPU's memory that the prepared pictures may take with "device"; else they stay on the
    # host, and each batch is copied.
    device_cache: float = _number(8.0, 0.0, 10_000.0)
    checkpoint_every: int = _number(200, 1, 1_000_000)  # steps
    validate_every: int = _number(1, 1, 10_000)  # epochs; the last one is always validated
    # The same numbers from the same steps. False: a GPU tries which kernels are fastest, and takes
    # those that add up in any order.
    exact: bool = True

    @property
    def kind(self) -> str:
        return MODELS[self.model].kind

    @property
    def fields(self) -> tuple[str, ...]:
        """The metadata that the classifier takes."""
        return _listed(self.metadata)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The classes to tell apart; (): all that occur."""
        return _listed(self.classes)

    @property
    def teachers(self) -> tuple[str, ...]:
        """The networks to learn from, which see what the learner sees."""
        return _listed(self.distillation.teachers)

    @property
    def distilled(self) -> tuple[str, ...]:
        """The data sets for whose pictures the teachers answer; (): all."""
        return _listed(self.distillation.sources)

    @property
    def paired(self) -> tuple[str, ...]:
        """The networks to learn from that see the lesion's picture of the other modality."""
        return _listed(self.distillation.paired)

    @property
    def sees_masks(self) -> bool:
        """Whether drawn masks decide about what the network learns from."""
        return self.kind != "classifier" or (self.preprocessing.crop > 0 and not self.crop_by)

    @property
    def outline_alone(self) -> bool:
        """Whether a multitask network learns outlines alone, and keeps the classes of its start."""
        return isinstance(self.loss, MultitaskLoss) and not self.loss.classification

    @property
    def balanced(self) -> float:
        """The share of the classes' prior that the loss takes out; 0 of a segmenter."""
        return self.loss.balanced if isinstance(self.loss, ClassifierLoss) else 0.0

    @property
    def group(self) -> str:
        """The scale by which the loss looks at groups of people; "" where it does not."""
        return self.loss.group if isinstance(self.loss, ClassifierLoss) else ""


LOSSES = {"segmenter": SegmenterLoss, "classifier": ClassifierLoss, "multitask": MultitaskLoss}


def recipe_names() -> list[str]:
    """The recipes that come with dermedge."""
    folder = resources.files("train") / "recipes"
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".toml"))


def load_recipe(name: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by its name, or from a .toml file, and apply `section.key=value` overrides.

    Raises
    ------
    RecipeError : unknown recipe, broken TOML, or a key that is unknown, of the wrong type or out
        of its range.
    """
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise RecipeError(f"no recipe file {path}")
        try:
            text, title = read_text(path), path.stem
        except UserError as error:
            raise RecipeError(f"recipe {error}") from error
    elif str(name) in recipe_names():
        source = resources.files("train") / "recipes" / f"{name}.toml"
        text, title = source.read_text(encoding="utf-8"), str(name)
    else:
        known = ", ".join(recipe_names())
        raise RecipeError(f"no recipe '{name}'; there are: {known}, or give a .toml file")
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RecipeError(f"recipe {name} is not valid TOML: {error}") from error
    for override in overrides:
        _override(table, override)
    return _recipe(table, title)


def refuse_repeats(recipe: Recipe) -> None:
    """UserError where a recipe names a network or a data set twice; for runs that begin.

    The answer of one counts twice in the mean, of the other the last weight counts. `load_recipe`
    takes both: a run that began so is to go on, and to be exported.
    """
    weighed = tuple(one.partition("=")[0].strip() for one in _listed(recipe.source_weights))
    for key, names in {
        "distillation.teachers": recipe.teachers,
        "distillation.paired": recipe.paired,
        "source_weights": weighed,
    }.items():
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"{key} names {twice[0]} twice: name it once")


def to_toml(recipe: Recipe) -> str:
    """The recipe in full, as `load_recipe` reads it back."""
    plain, sections = [], []
    for item in fields(recipe):
        value = getattr(recipe, item.name)
        if is_dataclass(value):
            rows = [f"{key.name} = {_toml(getattr(value, key.name))}" for key in fields(value)]
            sections.append("\n".join([f"[{item.name}]", *rows]))
        else:
            plain.append(f"{item.name} = {_toml(value)}")
    return "\n\n".join(["\n".join(plain), *sections]) + "\n"


def _recipe(table: dict, title: str) -> Recipe:
    model = table.get("model")
    if model not in MODELS:
        raise RecipeError(f"model must be one of {', '.join(MODELS)}; got {model!r}")
    kind = MODELS[model].kind
    table = _without_old_names(table, title)
    sections = {
        "preprocessing": Preprocessing,
        "optimizer": Optimizer,
        "loss": LOSSES[kind],
        "augmentation": Augmentation,
        "distillation": Distillation,
        "acceptance": Acceptance,
    }
    built: dict[str, Any] = {}
    for section, content in sections.items():
        values = table.get(section, {})
        if not isinstance(values, dict):
            raise RecipeError(f"{section} must be a table ([{section}]), got {values!r}")
        built[section] = _checked(content, values, f"{section}.")
    top = {key: value for key, value in table.items() if key not in sections}
    recipe = _checked(Recipe, {"name": title, **top}, "", built)
    if recipe.preprocessing.size % 32:
        raise RecipeError(
            "preprocessing.size must be a multiple of 32 (the networks halve it five times), "
            f"got {recipe.preprocessing.size}"
        )
    if recipe.pretrained != "no" and not MODELS[model].has_weights:
        raise RecipeError(f"pretrained must be 'no' for {model}: there are no ImageNet weights")
    if recipe.start and recipe.pretrained != "no":
        raise RecipeError("start and pretrained exclude each other: --set pretrained=no")
    if recipe.keep_start and (kind == "multitask" or not recipe.start):
        raise RecipeError(
            "keep_start keeps a share of the weights of a classifier's or a segmenter's start"
        )
    unknown = [name for name in recipe.fields if name not in FIELDS]
    if unknown or len(set(recipe.fields)) != len(recipe.fields):
        raise RecipeError(f"metadata must be some of {', '.join(FIELDS)}; got {recipe.metadata!r}")
    if unknown := [name for name in recipe.wanted if name not in CLASSES]:
        raise RecipeError(f"classes must be some of {', '.join(CLASSES)}; got {', '.join(unknown)}")
    try:
        parsed_weights(recipe.source_weights)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if kind == "segmenter" and (recipe.fields or recipe.wanted or recipe.balanced_sampling):
        raise RecipeError(f"{model} is a segmenter: it takes neither metadata nor classes")
    if kind != "segmenter" and recipe.outlines != "agreed":
        raise RecipeError(f"outlines = '{recipe.outlines}' is for segmenters: not for {model}")
    if kind != "classifier" and recipe.augmentation.mixes:
        raise RecipeError(f"mixup and cutmix mix classes, not masks: not for {model}")
    if kind == "multitask" and recipe.teachers:
        raise RecipeError(f"distillation has one answer to learn: not for {model}, which gives two")
    if recipe.freeze and (kind != "classifier" or not recipe.start):
        raise RecipeError("freeze keeps early layers of a classifier that has a start")
    if recipe.views and not recipe.freeze:
        raise RecipeError("views keeps the features of frozen layers: set freeze, too")
    if recipe.views and recipe.augmentation.mixes:
        raise RecipeError("mixup and cutmix mix pictures, views keeps features: leave one out")
    if recipe.views and recipe.augment_on == "device":
        raise RecipeError("views are augmented by the loader: leave augment_on = 'device' out")
    for check in (
        _check_unlabelled,
        _check_distilled,
        _check_paired,
        _check_groups,
        _check_outlines,
        _check_outline_alone,
    ):
        check(recipe)
    if kind != "classifier" and recipe.preprocessing.crop:
        raise RecipeError(f"preprocessing.crop needs a mask that is there already: not for {model}")
    if recipe.crop_by and not recipe.preprocessing.crop:
        raise RecipeError("crop_by says where preprocessing.crop crops: set that to 1 to 4, too")
    return recipe


def _without_old_names(table: dict, title: str) -> dict:
    """The table with what version 0.1 called [gate] under its name of today."""
    if "gate" not in table:
        return table
    if "acceptance" in table:
        raise RecipeError("[gate] is the old name of [acceptance]: leave it out")
    print(f"dermedge: recipe {title}: [gate] is now called [acceptance]", file=sys.stderr)
    return {("acceptance" if key == "gate" else key): value for key, value in table.items()}


def _check_unlabelled(recipe: Recipe) -> None:
    if not recipe.distillation.unlabelled:
        return
    if not recipe.teachers:
        raise RecipeError(
            "distillation.unlabelled needs distillation.teachers: without a teacher, pictures "
            "without a diagnosis or mask say nothing"
        )
    if recipe.augmentation.mixes:
        raise RecipeError(
            "distillation.unlabelled excludes mixup and cutmix: half of a mixed picture would have "
            "no class"
        )


def _check_distilled(recipe: Recipe) -> None:
    if not recipe.distilled:
        return
    if recipe.kind != "classifier" or not recipe.teachers:
        raise RecipeError(
            "distillation.sources says for which data sets distillation.teachers answer, for a "
            "classifier: set these, too"
        )
    if recipe.augmentation.mixes:
        raise RecipeError("distillation.sources excludes mixup and cutmix, which mix two data sets")
    if recipe.distillation.unlabelled:
        raise RecipeError(
            "distillation.sources excludes distillation.unlabelled: where no teacher answers, a "
            "picture without a diagnosis says nothing"
        )


def _check_paired(recipe: Recipe) -> None:
    if not recipe.paired:
        return
    spec = recipe.distillation
    if recipe.kind != "classifier" or not recipe.modality:
        raise RecipeError(
            "distillation.paired needs a classifier and modality: its networks see the other one"
        )
    if recipe.augmentation.mixes:
        raise RecipeError("distillation.paired excludes mixup and cutmix, which mix two lesions")
    if not spec.paired_weight or spec.paired_weight + bool(recipe.teachers) * spec.weight > 1:
        raise RecipeError(
            "distillation.paired_weight must be above 0, and with teachers at most 1 - weight; "
            f"got {spec.paired_weight}"
        )


def _check_groups(recipe: Recipe) -> None:
    loss = recipe.loss
    if not isinstance(loss, ClassifierLoss):
        return
    asked = bool(loss.group_balance or loss.group_dro)
    if asked != bool(loss.group):
        raise RecipeError(
            "loss.group needs loss.group_balance or loss.group_dro above 0, and these need it"
        )


def _check_outlines(recipe: Recipe) -> None:
    loss = recipe.loss
    if not isinstance(loss, SegmenterLoss) or (recipe.teachers and recipe.distillation.weight):
        return
    parts = [item.name for item in fields(SegmenterLoss) if item.name != "discriminator_lr"]
    if not any(getattr(loss, name) for name in parts):
        raise RecipeError(
            f"loss leaves {recipe.model} no outline to learn: set one of {', '.join(parts)} above 0"
        )


def _check_outline_alone(recipe: Recipe) -> None:
    if not recipe.outline_alone:
        return
    if not recipe.start or len(recipe.wanted) < 2:
        raise RecipeError(
            "loss.classification = 0 keeps the classes of a start: set start, and its classes as "
            "classes"
        )
    if recipe.group or recipe.balanced_sampling:
        raise RecipeError(
            "loss.classification = 0 learns no class: leave loss.group and balanced_sampling out"
        )


def _checked(kind: type, values: dict, prefix: str, built: dict[str, Any] | None = None):
    """Build `kind` from `values`, after checking each by its field's type and metadata."""
    known = {item.name: item for item in fields(kind) if item.name not in (built or {})}
    hints = get_type_hints(kind)
    accepted = {}
    for key, value in values.items():
        if key not in known:
            raise RecipeError(f"unknown key {prefix}{key}; there are: {', '.join(known)}")
        accepted[key] = _value(prefix + key, value, hints[key], known[key].metadata)
    try:
        return kind(**accepted, **(built or {}))
    except ValueError as error:
        raise RecipeError(f"[{prefix[:-1]}] {error}") from error


def _value(key: str, value: Any, expected: type, metadata) -> Any:
    titles = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    allowed = titles[expected]
    if "range" in metadata:
        low, high = metadata["range"]
        allowed += f" from {low:g} to {high:g}"
    if "choices" in metadata:
        allowed = "one of " + ", ".join(metadata["choices"])
    if expected is float and type(value) is int:
        value = float(value)
    # type(), not isinstance: true is an int for Python, never for a recipe.
    right = type(value) is expected
    if right and "range" in metadata:
        right = math.isfinite(value) and metadata["range"][0] <= value <= metadata["range"][1]
    if right and "choices" in metadata:
        right = value in metadata["choices"]
    if not right:
        raise RecipeError(f"{key} must be {allowed}; got {value!r}")
    return value


def _override(table: dict, override: str) -> None:
    path, equals, text = (part.strip() for part in override.partition("="))
    if not equals or not path or "\n" in text:
        raise RecipeError(
            f"an override is written key=value or section.key=value, got {override!r}"
        )
    *sections, key = path.split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"{path}: {section} is not a table")
    try:
        table[key] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        table[key] = text  # so that model=unet needs no quotes


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # As it is: JSON escapes what has more than 16 bits in two halves, which TOML refuses.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
