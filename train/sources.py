"""What each source of pictures shows how often: what is drawn, and the prior that logits carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dermedge import UserError
from dermedge.data.records import Record


def is_unlabelled(record: Record) -> bool:
    """Whether nobody said what it shows; a diagnosis that is no class here is not unlabelled."""
    return record.label is None and record.diagnosis is None and record.malignant is None


def parsed_weights(text: str) -> dict[str, float]:
    """A recipe's "ham10000=1, milk10k=0.5" by name. ValueError where it is not written so."""
    found = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        try:
            right = bool(name and equals) and 0 <= float(value) <= 1000
        except ValueError:
            right = False
        if not right:
            raise ValueError(
                "source_weights must be NAME=WEIGHT, NAME=WEIGHT, each weight from 0 to 1000; "
                f"got {item!r}"
            )
        found[name] = float(value)
    return found


def sources_of(key: str, named: Iterable[str], records: Sequence[Record]) -> list[str]:
    """The sources of the records; UserError where the recipe's `key` names one that is not here."""
    here = sorted({record.source for record in records if record.source})
    for name in named:
        if name not in here:
            raise UserError(
                f"{key} names {name}, which has no training picture here; there are: "
                f"{', '.join(here) or f'one data set alone, for which {key} is left out'}"
            )
    return here


def source_weights(text: str, records: Sequence[Record]) -> dict[str, float]:
    """`parsed_weights` of a recipe, by source; 1 for a source that is not named.

    UserError where it names a source that is not here.
    """
    named = parsed_weights(text)
    weights = {**dict.fromkeys(sources_of("source_weights", named, records), 1.0), **named}
    if weights and not any(weights.values()):
        raise UserError("source_weights leaves no source to learn from: all are 0")
    return weights


def sampling_shares(
    records: Sequence[Record], balance: float, weights: Mapping[str, float] | None = None
) -> tuple[float, ...] | None:
    """How often each record is drawn, a sum of 1; None: each once an epoch.

    Each source is drawn as often as it has pictures, times its weight; within a source a record is
    drawn as its class's count ** -balance.
    """
    weights = weights or {}
    if not balance and len(set(weights.values())) < 2:
        return None
    counts = Counter((record.source, record.label) for record in records)
    shares = np.array([counts[record.source, record.label] ** -balance for record in records])
    sources = np.array([record.source or "" for record in records])
    for source in set(sources.tolist()):
        mine = sources == source
        shares[mine] *= weights.get(source, 1.0) * mine.sum() / shares[mine].sum()
    return tuple(shares / shares.sum())


@dataclass(frozen=True, eq=False)
class Priors:
    """How much each class weighs in the loss, over all and by source; each sums to 1.

    Drawing and class weights included. A class that a source does not have weighs 0 there: what
    such a source shows says nothing of it.
    """

    overall: np.ndarray  # float32 (K,)
    by_source: dict[str, np.ndarray]  # float32 (K,)

    def of(self, record: Record) -> np.ndarray:
        return self.by_source[record.source or ""]

    @property
    def partial(self) -> bool:
        """Whether a source lacks a class that another one has."""
        return any((prior <= 0).any() for prior in self.by_source.values())

    def carried(self, balanced: float) -> np.ndarray:
        """The prior in a network's probabilities, where `balanced` of it is out of the loss."""
        left = np.where(self.overall > 0, self.overall, 1.0) ** (1 - balanced)
        left = np.where(self.overall > 0, left, 0.0)
        total: np.ndarray = left / left.sum()
        return total


def priors_of(
    records: Sequence[Record],
    labels: Sequence[str],
    shares: Sequence[float] | None,
    class_weights: Sequence[float],
) -> Priors:
    """Those of training records that are drawn in these shares; None: equally."""
    each = np.full(len(records), 1 / max(1, len(records))) if shares is None else np.array(shares)
    place = {label: column for column, label in enumerate(labels)}
    sums: dict[str, np.ndarray] = {}
    for record, share in zip(records, each, strict=True):
        row = sums.setdefault(record.source or "", np.zeros(len(labels)))
        if record.label in place:
            column = place[record.label]
            # A source of weight 0 is never drawn, but knows its classes all the same.
            row[column] += max(share, 1e-12) * class_weights[column]
    overall = np.sum(list(sums.values()), axis=0)
    # Where no picture has a label, none loses by it: any prior will do that knows every class.
    sums = {source: row if row.any() else overall for source, row in sums.items()}
    return Priors(
        (overall / overall.sum()).astype(np.float32),
        {source: (row / max(row.sum(), 1e-30)).astype(np.float32) for source, row in sums.items()},
    )
