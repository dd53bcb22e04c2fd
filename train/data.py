"""Pictures for training: prepared once into a cache, then augmented on the way to the network."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from dermedge import UserError
from dermedge.code_hash import code_hash
from dermedge.data.fingerprint import Fingerprints, of_pictures
from dermedge.data.joint import join, joint_split, keyed
from dermedge.data.leak import duplicates, split_apart
from dermedge.data.records import DataSet, Record
from dermedge.data.split import Split, group_records
from dermedge.data.twins import twins
from dermedge.evaluation.provenance import usable_cores
from dermedge.files import make_private, write_atomic
from dermedge.image.header import ImageError
from dermedge.metadata import encode
from train.augment import augment
from train.cropped import Cropper
from train.groups import group_row
from train.prepare import UNKNOWN
from train.prepare import read_prepared as _read
from train.recipe import Recipe
from train.sources import Priors

_WAITING, _READY, _FAILED = 0, 1, 2
_CHUNK = 128  # pictures between two notes of what is done


@dataclass(frozen=True)
class Pictures:
    """Prepared pictures, in the order of `records`; the arrays may be memory-mapped files."""

    records: tuple[Record, ...]
    images: np.ndarray  # uint8 (N, size, size, 3) RGB
    masks: np.ndarray | None  # uint8 (N, size, size), 0 or 255; UNKNOWN all over: there is none
    rows: np.ndarray  # int64 (len(records),): where each record lies in the arrays
    problems: tuple[str, ...]  # one line for each picture that was left out

    def __len__(self) -> int:
        return len(self.records)

    def image(self, index: int) -> np.ndarray:
        return self.images[self.rows[index]]

    def mask(self, index: int) -> np.ndarray:
        assert self.masks is not None
        return self.masks[self.rows[index]]

    def only(self, labels: Sequence[str]) -> Pictures:
        """Those of these classes, and those without any."""
        kept = [i for i, record in enumerate(self.records) if record.label in (*labels, None)]
        records = tuple(self.records[i] for i in kept)
        return replace(self, records=records, rows=self.rows[kept])


def load_pictures(
    records: Sequence[Record], recipe: Recipe, folder: Path, retry: bool = True
) -> Pictures:
    """Prepare every record's picture (and mask) once; later calls read the cache in `folder`.

    A call that was stopped half-way goes on where it was. Pictures that cannot be read are left
    out and named in `problems`; with `retry` those that failed before are tried again. The cache
    of one set of files, one preprocessing and one state of the code that does it is one folder; it
    may be deleted at any time. Nobody but its owner can read it. OSError where the disk has no room
    for it.
    """
    records, preprocessing = tuple(records), recipe.preprocessing
    masks = recipe.kind != "classifier"
    cropper = Cropper(recipe.crop_by) if recipe.crop_by else None
    cache = Path(folder) / _key(records, recipe, cropper)
    make_private(cache.parent)
    make_private(cache)
    size = preprocessing.size
    images = memory_mapped(cache / "images.uint8", (len(records), size, size, 3))
    drawn = memory_mapped(cache / "masks.uint8", (len(records), size, size)) if masks else None
    state = memory_mapped(cache / "state.uint8", (len(records),))
    notes = cache / "problems.json"
    waiting = np.flatnonzero(state != _READY if retry else state == _WAITING)
    problems = _problems(notes)
    for index in waiting:
        problems.pop(str(index), None)

    def fill(index: int) -> str | None:
        try:
            if cropper is not None:
                images[index] = cropper.read(records[index], preprocessing)
                return None
            images[index], mask = _read(records[index], preprocessing, masks)
            if drawn is not None:
                drawn[index] = mask
        except (ImageError, OSError) as error:
            return f"{records[index].id}: {error}"
        return None

    with (
        ThreadPoolExecutor(usable_cores()) as pool,
        tqdm(total=len(waiting), desc="preparing pictures", disable=not len(waiting)) as bar,
    ):
        for start in range(0, len(waiting), _CHUNK):
            chunk = waiting[start : start + _CHUNK]
            faults = dict(zip(chunk.tolist(), pool.map(fill, chunk), strict=True))
            problems.update({str(i): line for i, line in faults.items() if line})
            write_atomic(notes, json.dumps(problems), private=True)
            # Pixels before marks: a picture that is marked as ready is on the disk.
            images.flush()
            if drawn is not None:
                drawn.flush()
            state[chunk] = [_FAILED if faults[i] else _READY for i in chunk.tolist()]
            state.flush()
            bar.update(len(chunk))
    rows = np.flatnonzero(state == _READY)
    return Pictures(
        tuple(records[row] for row in rows), images, drawn, rows, tuple(problems.values())
    )


def default_split(data_set: DataSet, out: Path, by_picture: bool = False) -> Split:
    """The split that `dermedge data check` makes of the data set, for a run in `out`.

    Seed 0 whatever the recipe's: segmenter and classifier must not test on each other's training
    pictures. UserError where no picture can be read.
    """
    prints, errors = _compared(data_set, out.parent / "fingerprints")
    pairs = duplicates(data_set.records, prints)
    return split_apart(data_set, pairs, errors, by_picture=by_picture)


def _compared(data_set: DataSet, cache: Path) -> tuple[Fingerprints, dict[str, str]]:
    """As `of_pictures`; a line says how many cannot be read. UserError: none can."""
    prints, errors = of_pictures(data_set.records, cache)
    if errors:
        name, why = next(iter(errors.items()))
        if len(errors) == len(data_set.records):
            raise UserError(f"{data_set.root}: no picture can be read; {why}")
        print(
            f"{len(errors)} of {len(data_set.records)} pictures cannot be read, and are in no part "
            f"of the split (first: {name}: {why})",
            file=sys.stderr,
        )
    return prints, errors


def default_joint_split(
    data_sets: Sequence[DataSet],
    frozen: Mapping[str, Split],
    out: Path,
    by_picture: bool = False,
) -> Split:
    """One split of several data sets for a run in `out`, see `dermedge.data.joint.joint_split`.

    Copies of one picture and twins (`dermedge.data.twins`) lie in one part over all sets. UserError
    where no picture can be read.
    """
    whole, cache = join(data_sets), out.parent / "fingerprints"
    prints, errors = _compared(whole, cache)
    pairs = duplicates(whole.records, prints)
    sources = list(keyed(data_sets))
    for later, key in enumerate(sources):
        for other in sources[:later]:
            found = twins(_of_source(whole, key), _of_source(whole, other), cache)
            pairs += [(twin.one, twin.other) for twin in found]
            count = len({twin.one for twin in found})
            if count:
                print(
                    f"{count} pictures of {key} show a lesion of {other} by their local features, "
                    "and stay in one part with it",
                    file=sys.stderr,
                )
    return joint_split(data_sets, frozen, pairs, errors, by_picture)


def _of_source(whole: DataSet, key: str) -> list[Record]:
    return [record for record in whole.records if record.source == key]


def subset(data_set: DataSet, split: Split, limit: int) -> Split:
    """A part of the split with about `limit` pictures: whole lesions and patients, by label.

    A pure function of ids, labels, `split.seed` and `limit`. Each class keeps its share of each
    part, but never fewer than one group.
    """
    total = sum(len(ids) for ids in split.parts.values())
    if limit >= total:
        return split
    parts = {}
    for part in split.parts:
        strata = defaultdict(list)
        for group in group_records(split.select(data_set.records, part), data_set.same):
            strata[group[0].label].append(group)
        chosen: list[str] = []
        for groups in strata.values():
            groups.sort(
                key=lambda group: hashlib.sha256(f"{split.seed}\n{group[0].id}".encode()).digest()
            )
            wanted = limit / total * sum(map(len, groups))
            taken: list[str] = []
            for group in groups:
                if taken and len(taken) + len(group) / 2 > wanted:
                    break
                taken += [record.id for record in group]
            chosen += taken
        parts[part] = tuple(sorted(chosen))
    note = f"subset of {sum(map(len, parts.values()))} of {total} pictures"
    return Split(split.data_set, split.seed, parts, (*split.notes, note))


class Views(Dataset):
    """Training samples by (epoch, index): a dict of what the recipe's network needs.

    "image" uint8 (size, size, 3); "mask" float32 (1, size, size), -1 all over where the data set
    has none; "classes" float32 (K,), 1 at the label, 0 all over without one; "metadata"
    float32 (M,); with `priors` "prior" float32 (K,), that of the record's source; with `paired`, by
    the record's id, "paired" float32 (K,), see `train.paired`; with `distillation.sources`
    "distilled" float32 (), 1 where the teachers answer; with `loss.group` "group", see
    `train.groups`.
    A sample is a pure function of seed, epoch and index, whichever process makes it. Epoch None:
    the picture as it is, with all its metadata.
    """

    def __init__(
        self,
        pictures: Pictures,
        labels: Sequence[str],
        recipe: Recipe,
        priors: Priors | None = None,
        paired: Mapping[str, np.ndarray] | None = None,
    ):
        self.pictures = pictures
        self.priors = priors
        self.paired = paired
        self.labels = tuple(labels)
        self.recipe = recipe

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, key: tuple[int | None, int]) -> dict[str, np.ndarray]:
        epoch, index = key
        image = np.array(self.pictures.image(index))
        mask = None if self.pictures.masks is None else np.array(self.pictures.mask(index))
        known = mask is not None and mask[0, 0] != UNKNOWN
        if epoch is not None:
            rng = np.random.default_rng((self.recipe.seed, epoch, index))
            image, mask = augment(image, mask, self.recipe.augmentation, rng)
        sample = {"image": image, **self.without_image(epoch, index)}
        if mask is not None:
            mask = mask[None].astype(np.float32) / 255
            sample["mask"] = mask if known else np.full_like(mask, -1)
        return sample

    def without_image(self, epoch: int | None, index: int) -> dict[str, np.ndarray]:
        """What a sample holds beside picture and mask."""
        record = self.pictures.records[index]
        sample = self.facts(record)
        if fields := self.recipe.fields:
            values = {name: getattr(record, name) for name in fields}
            if epoch is not None:
                # Hidden at random, so that the network does well without, too. By a generator of
                # its own: it is the same with the picture and without.
                rng = np.random.default_rng((self.recipe.seed, epoch, index, 1))
                hidden = self.recipe.metadata_dropout
                values = {k: v for k, v in values.items() if rng.random() >= hidden}
            sample["metadata"] = encode(fields, **values)
        return sample

    def facts(self, record: Record) -> dict[str, np.ndarray]:
        """What is the same in each view of a record's picture."""
        sample = {}
        if self.labels:
            sample["classes"] = np.array([name == record.label for name in self.labels], np.float32)
        if self.labels and self.priors is not None:
            sample["prior"] = self.priors.of(record)
        if self.recipe.distilled:
            sample["distilled"] = np.array(record.source in self.recipe.distilled, np.float32)
        if self.paired is not None:
            sample["paired"] = self.paired[record.id]
        if group := self.recipe.group:
            sample["group"] = group_row(record, group)
        return sample


@dataclass(frozen=True)
class Batches:
    """Which samples each step sees: a pure function of the seed, so any step can be the first."""

    count: int  # samples in the training part
    size: int  # of a batch, over all processes
    seed: int
    shares: tuple[float, ...] | None = None  # how often each sample is drawn; None: once an epoch

    @property
    def per_epoch(self) -> int:
        return max(1, self.count // self.size)

    def share(
        self, start: int, stop: int, rank: int, world: int
    ) -> Iterator[list[tuple[int | None, int]]]:
        """The (epoch, index) of process `rank` of `world`, for the steps `start` to `stop`."""
        for step in range(start, stop):
            epoch, position = divmod(step, self.per_epoch)
            rng = np.random.default_rng((self.seed, epoch))
            if self.shares is None:
                order = rng.permutation(self.count)
            else:
                order = rng.choice(self.count, self.count, p=self.shares)
            # A part smaller than one batch repeats itself to fill it.
            order = np.resize(order, max(self.count, self.size))
            batch = order[position * self.size : (position + 1) * self.size]
            yield [(epoch, int(index)) for index in batch[rank::world]]


def loader(
    views: Dataset, batches: Iterable[list[tuple[int | None, int]]], workers: int
) -> DataLoader:
    return DataLoader(
        views,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker if workers else None,
    )


def present_labels(records: Sequence[Record], classes: Sequence[str]) -> tuple[str, ...]:
    """The classes that occur, in the order of `classes`."""
    found = Counter(record.label for record in records)
    return tuple(label for label in classes if found[label])


def _start_worker(_: int) -> None:
    import signal

    def once(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)

    cv2.setNumThreads(0)  # the workers are the parallelism
    # All are for the training process to handle, and come to all of its group: by Ctrl-C, from a
    # terminal that is closed, or from systemd. Where a worker dies of it, the checkpoint is not
    # saved. A second SIGTERM is for it alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):  # not on Windows
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, once)


def _key(records: Sequence[Record], recipe: Recipe, cropper: Cropper | None) -> str:
    how = [code_hash("train.prepare"), recipe.preprocessing.to_dict(), recipe.kind != "classifier"]
    if cropper is not None:
        how += [code_hash("train.cropped"), cropper.sha256]
    digest = hashlib.sha256(json.dumps(how).encode())
    for record in records:
        for path in (record.image, record.mask if recipe.sees_masks else None):
            if path is None:
                continue
            try:
                status = path.stat()
            except FileNotFoundError as error:
                raise UserError(f"{record.id}: there is no file {path}") from error
            line = f"{record.id}\n{path.resolve()}\n{status.st_size}\n{status.st_mtime_ns}\n"
            digest.update(line.encode())
    return digest.hexdigest()[:20]


def _problems(notes: Path) -> dict[str, str]:
    try:
        found = json.loads(notes.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def memory_mapped(path: Path, shape: tuple[int, ...], dtype=np.uint8) -> np.memmap:
    """A writable memory-mapped array that its owner alone can read; new ones are zeros."""
    # NumPy 1.26 maps no empty file, such as that of a validation part without pictures.
    length = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
    if not path.exists() or path.stat().st_size != length:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(handle, "wb") as file:
            file.truncate(length)
            try:
                # The disk is taken now: a memory map that runs out of it later is a crash.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, length)
            except OSError as error:
                # Some file systems cannot do it; there the file stays sparse.
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    path.unlink()
                    raise OSError(
                        error.errno,
                        f"{error.strerror}; the cache of pictures needs {length / 1e6:.0f} MB here",
                        str(path),
                    ) from error
    path.chmod(0o600)
    return np.memmap(path, dtype, "r+", shape=shape)
