"""One leak check: which pictures that are to be measured a network has learnt from.

`data check`, `train` (also of `start` and teachers), `export` and `evaluate` all ask here. Two
pictures are one where they have the same number in the ISIC archive, the same bytes, or the same
look (see `dermedge.data.fingerprint`); pictures of one public lesion belong together, too.

`training.npz` (FILE) says what a network has learnt from, in a run's folder and in a bundle:

    numbers  uint32 (n,)     number in the ISIC archive, 2**32 - 1 for pictures from elsewhere
    lesions  uint32 (n,)     number of a lesion whose id is public; 0: none
    files    uint64 (n,)     first eight bytes of the file's SHA-256, big-endian; 0: not stored
    looks    uint8 (n, 64)   perceptual hash; 0: not stored
    use      uint8 (n,)      bits: 1 train, 2 val, 4 test, 8 train of a network that this one
                             started or learnt from; of a segmenter as they are, of a classifier
                             times 16
    split    uint8 (32,)     SHA-256 of the run's split; zeros in a bundle
    unknown  str (k,)        networks that it started or learnt from, of whose pictures no list is
                             left

No file name, id or order of a data set is in it: rows are sorted by their content. Whoever does not
hold a picture learns nothing of it but a pattern of light and dark in 16 x 16 frequencies. In a
bundle, which has to be small, pictures of the ISIC archive are known by their public numbers alone,
and the pictures of the test part are left out.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dermedge.bundle.npz import Field, read_npz
from dermedge.data.fingerprint import LOOK_BYTES, NO_NUMBER, Fingerprints, alike
from dermedge.data.records import DataError, DataSet, Record
from dermedge.data.split import Split, group_records, linked, make_split

FILE = "training.npz"
TRAIN, VAL, TEST, EARLIER = 1, 2, 4, 8
LEARNT = TRAIN | EARLIER
BITS = {"train": TRAIN, "val": VAL, "test": TEST}
ROLE_SHIFT = {"segmenter": 0, "classifier": 4}
MAX_PICTURES = 1_000_000
_MAX_UNKNOWN = 64
_FIELDS = {
    **dict.fromkeys(("numbers", "lesions", "files", "use", "split"), Field("u", 1)),
    "looks": Field("u", 2),
    "unknown": Field("U", 1),
}

# How a picture was recognised, the surest first.
HOW = ("by ISIC number", "by their bytes", "by their lesion", "by their look")
_LOOK = len(HOW)


@dataclass(frozen=True, eq=False)
class TrainingPictures:
    """The pictures behind a network or a bundle; see the module for what is stored."""

    prints: Fingerprints
    use: np.ndarray  # uint8 (n,)
    split: bytes = bytes(32)
    unknown: tuple[str, ...] = ()

    def of(self, role: str, bits: int) -> Fingerprints:
        """Those that a role used in one of the ways in `bits`."""
        return self.prints[(self.use >> ROLE_SHIFT[role]) & bits > 0]

    def roles(self) -> tuple[str, ...]:
        """The roles that used any of the pictures, in the order of ROLE_SHIFT."""
        return tuple(role for role, shift in ROLE_SHIFT.items() if (self.use >> shift & 15).any())

    def to_bytes(self) -> bytes:
        """The content of `training.npz`; equal contents give equal bytes."""
        prints = self.prints
        order = np.lexsort((prints.looks[:, 0], prints.files, prints.numbers))
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            numbers=prints.numbers[order],
            lesions=prints.lesions[order],
            files=prints.files[order],
            looks=prints.looks[order],
            use=self.use[order],
            split=np.frombuffer(self.split, np.uint8),
            unknown=np.array(self.unknown, np.str_),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, name: str = FILE) -> TrainingPictures:
        """Raises DataError where it is damaged, or larger than any training set is."""
        try:
            arrays = read_npz(content, _FIELDS, MAX_PICTURES * (LOOK_BYTES + 32), MAX_PICTURES)
            numbers, lesions, files = arrays["numbers"], arrays["lesions"], arrays["files"]
            looks, use = arrays["looks"], arrays["use"]
            count = len(numbers)
            shapes = [(count,)] * 3 + [(count, LOOK_BYTES), (count,), (32,)]
            kinds = [np.uint32, np.uint32, np.uint64, np.uint8, np.uint8, np.uint8]
            columns = [numbers, lesions, files, looks, use, arrays["split"]]
            if [item.shape for item in columns] != shapes or [i.dtype for i in columns] != kinds:
                raise ValueError("shapes")
            unknown = arrays["unknown"]
            if len(unknown) > _MAX_UNKNOWN:
                raise ValueError("unknown")
        except ValueError:  # an ArchiveError, too
            raise DataError(
                "{name}: the list of training pictures is damaged", code="training", name=name
            ) from None
        prints = Fingerprints(numbers, lesions, files, looks)
        return cls(prints, use, arrays["split"].tobytes(), tuple(map(str, unknown)))


def together(uses: Sequence[TrainingPictures]) -> TrainingPictures:
    """All of them as one; a picture that several used is one row."""
    prints = Fingerprints.joined([one.prints for one in uses])
    unknown = tuple(dict.fromkeys(name for one in uses for name in one.unknown))
    if not len(prints):
        return TrainingPictures(prints, np.zeros(0, np.uint8), unknown=unknown)
    use = np.concatenate([one.use for one in uses])
    keys = np.concatenate(
        [
            np.ascontiguousarray(column).view(np.uint8).reshape(len(prints), -1)
            for column in (prints.numbers, prints.lesions, prints.files, prints.looks)
        ],
        axis=1,
    )
    _, first, row = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    merged = np.zeros(len(first), np.uint8)
    np.bitwise_or.at(merged, row.reshape(-1), use)
    return TrainingPictures(prints[first], merged, unknown=unknown)


def published(uses: Sequence[TrainingPictures]) -> bytes:
    """The part of a bundle: what its networks learnt from or were tuned on, not what tests them."""
    whole = together(uses)
    kept = whole.use & ~np.uint8(TEST | TEST << 4)
    rows = kept > 0
    prints = whole.prints[rows]
    archive = prints.numbers != NO_NUMBER
    prints = replace(
        prints,
        files=np.where(archive, 0, prints.files).astype(np.uint64),
        looks=np.where(archive[:, None], 0, prints.looks).astype(np.uint8),
    )
    # Once more: what differed by its bytes alone may be one number now.
    bundled = together([TrainingPictures(prints, kept[rows], unknown=whole.unknown)])
    return bundled.to_bytes()


# --- the check -----------------------------------------------------------------------------


def overlap(measured: Fingerprints, known: Fingerprints) -> np.ndarray:
    """How each of `measured` is known, uint8 (n,): 0 not at all, else its place in HOW plus 1."""
    how = np.zeros(len(measured), np.uint8)
    if not len(measured) or not len(known):
        return how
    for i, _ in alike(measured.looks, known.looks):
        how[i] = _LOOK
    columns = ((3, "lesions", 0), (2, "files", 0), (1, "numbers", NO_NUMBER))
    for place, name, none in columns:
        mine, theirs = getattr(measured, name), getattr(known, name)
        how[(mine != none) & np.isin(mine, theirs)] = place
    return how


def counted(how: np.ndarray) -> str:
    """'5 by ISIC number, 2 by their look'."""
    return ", ".join(
        f"{count} {words}" for place, words in enumerate(HOW, 1) if (count := (how == place).sum())
    )


@dataclass(frozen=True)
class Leak:
    """What a network knows of pictures that are to be measured."""

    line: str  # how many of which, in words
    certain: bool  # by more than their look, which may deceive


def leaks(
    known: TrainingPictures, measured: dict[str, Fingerprints], ids: dict[str, Sequence[str]]
) -> Leak | None:
    """Whether what a network learnt from is tested or tuned on, or what it was tuned on is tested.

    `measured` and `ids` are by part, 'val' and 'test'.
    """
    lines, certain = [], False
    for part, title in (("test", "test"), ("val", "validation")):
        if part not in measured or not len(measured[part]):
            continue
        how = np.zeros(len(measured[part]), np.uint8)
        for role in known.roles():
            bits = LEARNT | VAL if part == "test" else LEARNT
            shared = overlap(measured[part], known.of(role, bits))
            how = np.where((how == 0) | ((shared > 0) & (shared < how)), shared, how)
        if how.any():
            first = ids[part][int(np.flatnonzero(how)[0])]
            lines.append(
                f"{np.count_nonzero(how)} of {len(how)} {title} pictures ({counted(how)}; "
                f"first: {first})"
            )
            certain |= bool(((how > 0) & (how < _LOOK)).any())
    return Leak(" and ".join(lines), certain) if lines else None


# --- one data set --------------------------------------------------------------------------


def duplicates(records: Sequence[Record], prints: Fingerprints) -> list[tuple[str, str]]:
    """Pairs of ids that are one picture, by number, bytes or look; sorted."""
    pairs = {(i, j) for i, j in alike(prints.looks)}
    for values, none in ((prints.numbers, NO_NUMBER), (prints.files, 0)):
        order = np.argsort(values, kind="stable")
        same = (values[order][1:] == values[order][:-1]) & (values[order][1:] != none)
        pairs |= {tuple(sorted((order[k], order[k + 1]))) for k in np.flatnonzero(same)}
    return sorted(
        (min(records[i].id, records[j].id), max(records[i].id, records[j].id)) for i, j in pairs
    )


def split_apart(
    data_set: DataSet,
    pairs: Iterable[tuple[str, str]],
    unreadable: Iterable[str] = (),
    same: Iterable[tuple[str, str]] = (),
    seed: int = 0,
    test_on: str = "test",
    by_picture: bool = False,
) -> Split:
    """The split of `data check` and of `train` without one; see `make_split` for the rest.

    Pictures of a lesion or patient, and those of `pairs` (see `duplicates`), stay together; those
    that cannot be read are in no part. Where the split by ids alone tears no pair, it stays as it
    is: a copy that does no harm does not move thousands of pictures to other parts.
    """
    left_out, pairs, same = set(unreadable), list(pairs), list(same)
    if left_out:
        stated = [*data_set.same, *same]
        by_copies = linked(group_records(data_set.records, [*stated, *pairs]), left_out)
        same += linked(group_records(data_set.records, stated), left_out)
        usable = tuple(record for record in data_set.records if record.id not in left_out)
        data_set = replace(data_set, records=usable)
        pairs = [pair for pair in pairs if left_out.isdisjoint(pair)] + by_copies
    by_ids = make_split(data_set, seed=seed, same=same, test_on=test_on, by_picture=by_picture)
    if not torn(by_ids, pairs):
        return by_ids
    return make_split(
        data_set, seed=seed, same=[*same, *pairs], test_on=test_on, by_picture=by_picture
    )


def torn(split: Split, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs whose pictures lie in two parts of the split."""
    part = {name: part for part, ids in split.parts.items() for name in ids}
    return [p for p in pairs if p[0] in part and p[1] in part and part[p[0]] != part[p[1]]]
