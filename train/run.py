"""The folder that a training run leaves behind: what it holds, and how it is read again."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.tensorboard import SummaryWriter

from dermedge import UserError, __version__
from dermedge import data as datasets
from dermedge.data.fingerprint import Fingerprints, of_names, of_pictures
from dermedge.data.joint import BETWEEN, split_of_source
from dermedge.data.leak import (
    BITS,
    EARLIER,
    FILE,
    LEARNT,
    ROLE_SHIFT,
    TrainingPictures,
    together,
)
from dermedge.data.records import Record
from dermedge.data.split import Split
from dermedge.files import names_in, read_text, write_atomic
from dermedge.image.preprocess import Preprocessing
from train.models import MODELS, Normalized, build_model
from train.recipe import Recipe, RecipeError, load_recipe, to_toml

fcntl: Any = import_module("fcntl") if os.name == "posix" else None  # none on Windows

_MASK_LOSSES = ("bce", "jaccard", "dice", "l1", "endpoint", "adversarial", "discriminator")
# All that a run leaves in its folder.
_FILES = frozenset(
    {
        *("recipe.toml", "split.json", "splits", FILE, "run.json", "checkpoint.pt", "best.pt"),
        *("log.csv", "tensorboard"),
    }
)
_CLASS_SCORES = ("val_auc", "val_balanced_accuracy")
COLUMNS = {
    "segmenter": (*_MASK_LOSSES, "distillation", "val_jaccard"),
    "classifier": ("cross_entropy", "distillation", "paired", *_CLASS_SCORES),
    "multitask": (*_MASK_LOSSES, "cross_entropy", "val_jaccard", *_CLASS_SCORES, "val_mean"),
}


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
    start: str  # the run, NAME@SHA256 of the bundle, or file that it started from; "": none
    metadata: tuple[str, ...]  # what the classifier takes beside the picture
    commit: str  # of the code, several where it went on under another; "-": it is no checkout
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
    # By class, of a classifier: the prior that its probabilities carry. {}: not noted at that time.
    prior: dict[str, float] = field(default_factory=dict)
    # Of what is said of the pictures, see `said_sha256`. "": not noted at that time.
    said: str = ""
    # Of the bytes of pictures and masks, see `files_sha256`. "": not noted at that time.
    files: str = ""
    # The networks that it learns from, as its recipe names them, and the SHA-256 of each.
    teachers: dict[str, str] = field(default_factory=dict)

    def save(self) -> None:
        content = asdict(self)
        del content["folder"]
        write_atomic(self.folder / "run.json", json.dumps(content, indent=1) + "\n")


def load_run(path: str | Path) -> Run:
    """Read a run folder. UserError where there is none, or none that can be used."""
    folder = Path(path)
    stored = folder / "run.json"
    try:
        content = json.loads(read_text(stored))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{folder} is no run folder: it has no run.json") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{stored} cannot be used: it is not JSON ({error})") from error
    known = {item.name for item in fields(Run)} - {"folder"}
    if not isinstance(content, dict) or not known & content.keys():
        raise UserError(f"{stored} cannot be used: it says nothing of a run")
    # Runs of 0.2.0 and before have none of these.
    content = {"prior": {}, "said": "", "files": "", "teachers": {}, **content}
    if differs := known ^ content.keys():
        raise UserError(
            f"{folder}: this run was made by another version of dermedge"
            f"{_version(content)}: train again, or use that version ({stored.name} "
            f"{'lacks' if differs & known else 'has'} '{min(differs)}')"
        )
    try:
        content["preprocessing"] = Preprocessing.from_dict(content["preprocessing"])
        for name in ("labels", "metadata"):
            content[name] = tuple(content[name])
        run = Run(folder=folder, **content)
        if run.model not in MODELS or MODELS[run.model].kind != run.kind:
            raise ValueError(f"there is no {run.kind} '{run.model}'")
        return run
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{stored} cannot be used: {error}") from error


def _version(content: dict) -> str:
    """' (0.0.9)', where the run says so."""
    versions = content.get("versions")
    made_by = versions.get("dermedge") if isinstance(versions, dict) else None
    return f" ({made_by})" if isinstance(made_by, str) and made_by != __version__ else ""


def run_of(path: str) -> Run | None:
    """The run behind a path to start or learn from: its folder, or a file in it; None: no run."""
    place = Path(path)
    if place.is_dir():
        return load_run(place)
    folder = place.resolve().parent
    return load_run(folder) if place.exists() and (folder / "run.json").exists() else None


def training_pictures(run: Run) -> TrainingPictures:
    """What the run's network knows of which pictures, all parts of its split included.

    Runs of older versions have no such list: it is made from their split, and where their pictures
    are still there, from those.
    """
    split = Split.load(run.folder / "split.json")
    stored = run.folder / FILE
    if stored.exists():
        found = TrainingPictures.from_bytes(stored.read_bytes(), str(stored))
        if found.split.hex() == split.sha256:
            return found
    try:
        data_set = datasets.load(run.data_set, run.data_root)
        prints = {
            part: of_pictures(split.select(data_set.records, part))[0] for part in split.parts
        }
    except UserError:
        print(
            f"{run.folder} has no {FILE}, and its pictures are not in {run.data_root}: they are "
            "compared by ISIC number alone",
            file=sys.stderr,
        )
        prints = {part: of_names(ids) for part, ids in split.parts.items()}
    return of_split(run.kind, split, prints)


def of_split(
    kind: str,
    split: Split,
    prints: dict[str, Fingerprints],
    earlier: Sequence[TrainingPictures] = (),
    unknown: Sequence[str] = (),
) -> TrainingPictures:
    """The list of a run of a kind of network, which started or learnt from `earlier` ones."""
    roles = ("segmenter", "classifier") if kind == "multitask" else (kind,)

    def bits(use: int) -> int:
        return sum(use << ROLE_SHIFT[role] for role in roles)

    uses = [
        TrainingPictures(found, np.full(len(found), bits(BITS[part]), np.uint8))
        for part, found in prints.items()
    ]
    for one in earlier:
        for role in one.roles():
            learnt = one.of(role, LEARNT)
            uses.append(TrainingPictures(learnt, np.full(len(learnt), bits(EARLIER), np.uint8)))
        unknown = [*unknown, *one.unknown]
    whole = together(uses)
    return replace(whole, split=bytes.fromhex(split.sha256), unknown=tuple(dict.fromkeys(unknown)))


def load_model(run: Run) -> Normalized:
    """The network with the weights in best.pt, in evaluation mode, on the CPU.

    UserError where best.pt is missing, damaged or of another network.
    """
    path = run.folder / "best.pt"
    if not path.exists():
        raise UserError(f"{run.folder} has no best.pt yet: train on until the first validation")
    with intact(path):
        model = build_model(run.model, run.labels, metadata=run.metadata)
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.eval()


def check_folder(out: Path, recipe: Recipe, split: Split, fresh: bool) -> None:
    """UserError unless the folder is free, may be thrown away, or holds this very run."""
    if not _free(out):
        raise _busy(out)
    _check_content(out, recipe, split, fresh)


def _check_content(out: Path, recipe: Recipe, split: Split, fresh: bool) -> None:
    resolved, stored = to_toml(recipe), out / "recipe.toml"
    names = names_in(out)
    others = sorted(names - _FILES)
    # A recipe of one's own may be called so, too, and --fresh deletes the whole folder.
    is_run = {stored.name, "split.json"} <= names
    if (names and not stored.exists()) or (others and (fresh or not is_run)):
        named = f" ({', '.join(others[:3])})" if others else ""
        raise UserError(f"{out} holds other files{named}; choose another folder with --out")
    if fresh or not stored.exists():
        return
    if (out / "run.json").exists():
        load_run(out)  # one of another version does not go on
        if not (out / "checkpoint.pt").exists():
            # It would begin again, and replace the best.pt that it has.
            raise UserError(
                f"{out} holds a run without the checkpoint.pt that it would go on from: put it "
                "back, choose another --out, or --fresh to throw that run away"
            )
    try:
        # As it reads today: a run goes on although recipes know more keys by now.
        kept_recipe = to_toml(load_recipe(stored))
    except RecipeError:
        kept_recipe = read_text(stored)
    before, now = (set(text.splitlines()) for text in (kept_recipe, resolved))
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


def holds(out: Path, recipe: Recipe) -> bool:
    """Whether the folder was made for a run of this recipe, which is not at work there."""
    stored = out / "recipe.toml"
    return stored.exists() and read_text(stored) == to_toml(recipe) and _free(out)


def _free(folder: Path) -> bool:
    """Whether no training is at work there."""
    handle, free = _locked(folder, shared=True)
    if handle is not None:
        os.close(handle)
    return free


def _busy(out: Path) -> UserError:
    return UserError(f"another training is at work in {out}: wait for it, or give another --out")


def _locked(folder: Path, shared: bool = False) -> tuple[int | None, bool]:
    """Lock the folder itself, which a deletion of what it holds leaves locked.

    Returns the handle, None where there is no folder or no such lock, and whether nobody else has
    it. The system lets go of the lock when the handle is closed or the process ends, however.
    """
    if fcntl is None or not folder.is_dir():
        return None, True
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:  # some network file systems know no locks
        os.close(handle)
        return None, not isinstance(error, BlockingIOError)
    return handle, True


def _hold(folder: Path, held: ExitStack) -> None:
    """Lock the folder until `held` is left. UserError: a training is at work there."""
    handle, free = _locked(folder)
    if handle is not None:
        held.callback(os.close, handle)
        # Also where a worker that was forked meanwhile has the handle, too.
        held.callback(fcntl.flock, handle, fcntl.LOCK_UN)
    if not free:
        raise _busy(folder)


def make_folder(
    out: Path, recipe: Recipe, split: Split, fresh: bool, accelerator: Accelerator
) -> ExitStack:
    """Make the run's folder; `fresh` deletes what it holds. UserError as of `check_folder`.

    Until what it returns is left, no other training begins there.
    """
    accelerator.wait_for_everyone()
    with ExitStack() as held:
        if accelerator.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            # One lock for all that follows, and another look at what is there: somebody may have
            # been here while the pictures were prepared.
            _hold(out, held)
            _check_content(out, recipe, split, fresh)
            for item in list(out.iterdir()) if fresh else ():
                if item.is_dir() and not item.is_symlink():
                    shutil.rmtree(item)
                else:
                    item.unlink()
            write_atomic(out / "recipe.toml", to_toml(recipe))
            split.save(out / "split.json")
            if BETWEEN in split.data_set:
                # `evaluate --split-file` measures one data set at a time.
                (out / "splits").mkdir(exist_ok=True)
                for key in split.data_set.split(BETWEEN):
                    split_of_source(split, key).save(out / "splits" / f"{key}.json")
        accelerator.wait_for_everyone()
        return held.pop_all()


def said_sha256(recipe: Recipe, parts: Mapping[str, Sequence[Record]]) -> str:
    """Of which pictures are in which part, and of all that their tables say and training hears."""
    facts = ("id", "label", "source", *recipe.fields, *filter(None, [recipe.group]))
    digest = hashlib.sha256()
    for part, records in sorted(parts.items()):
        for record in records:
            drawn = record.mask is not None and recipe.kind != "classifier"
            row = (part, drawn, *(getattr(record, name) for name in facts))
            digest.update(f"{row!r}\n".encode())
    return digest.hexdigest()


def files_sha256(
    recipe: Recipe,
    parts: Mapping[str, Sequence[Record]],
    files: Mapping[str, int],
    others: Mapping[str, Sequence[Record]],
) -> str:
    """Of the bytes of all that training sees: pictures, masks, and what paired networks see.

    `files` are those of the pictures by id, `others` as `train.paired.partners` gives them.
    """
    digest = hashlib.sha256()
    for part, records in sorted(parts.items()):
        for record in records:
            drawn = hashlib.sha256()
            if recipe.sees_masks and record.mask is not None:
                drawn.update(record.mask.read_bytes())
            seen = [record.id, *(other.id for other in others.get(record.id, ()))]
            row = (part, drawn.hexdigest(), [(name, files[name]) for name in seen])
            digest.update(f"{row!r}\n".encode())
    return digest.hexdigest()


def refuse_other_words(
    out: Path, labels: Sequence[str], pictures: dict[str, int], said: str, files: str
) -> None:
    """UserError where the run in `out` learns from other pictures, or from other words on them.

    Its split names pictures alone: their classes may be others by now, and so would be those of the
    network. `pictures` are how many are in the parts, `said` as `said_sha256` gives it, `files` as
    `files_sha256`.
    """
    if not (out / "run.json").exists():
        return
    run = load_run(out)
    now, before = (
        f"{of['train']} training and {of['val']} validation pictures"
        + (f" of {', '.join(names)}" if names else "")
        for of, names in ((pictures, labels), (run.pictures, run.labels))
    )
    if now != before:
        changed = f"now {now}, then {before}"
    elif run.said not in ("", said):
        changed = "their classes or metadata differ"
    elif run.files not in ("", files):
        changed = "there are other files under their names, or masks"
    else:
        return
    raise UserError(
        f"the pictures of {out}, or what is said of them, have changed since ({changed}): put them "
        "back, choose another --out, or --fresh to throw that run away"
    )


def refuse_other_teachers(out: Path, teachers: Mapping[str, str]) -> None:
    """UserError where the run in `out` began with another network under a teacher's name."""
    if not (out / "run.json").exists():
        return
    run = load_run(out)
    changed = [
        path for path, sha256 in teachers.items() if run.teachers.get(path, sha256) != sha256
    ]
    if changed and not run.finished:
        raise UserError(
            f"{changed[0]} is another network than the one that {out} began to learn from: put it "
            "back, choose another --out, or --fresh to throw that run away"
        )


class Log:
    """log.csv and tensorboard/, without the rows that a resumed run will write again."""

    def __init__(self, out: Path, kind: str, step: int, active: bool):
        self.active = active
        if not active:
            return
        self.columns = ("step", "epoch", "lr", *COLUMNS[kind])
        path = out / "log.csv"
        kept = []
        if path.exists():
            rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
            try:
                # A row that a full disk or a loss of power cut off may begin with another number.
                whole = [row for row in rows if None not in row and None not in row.values()]
                kept = [row for row in whole if int(row["step"]) <= step]
            except (ValueError, KeyError, TypeError, csv.Error) as error:
                raise UserError(
                    f"{path} is damaged ({error}): move it away, or train again with --fresh"
                ) from error
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

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_) -> None:
        if self.active:
            self.file.close()
            self.board.close()


@contextmanager
def intact(path: Path) -> Iterator[None]:
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


def save_content(content: dict, path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomic(path, buffer.getvalue())
