"""The prior of the classes that a classifier's probabilities carry, and another in its place.

A network that answers p(class | picture) under one prior answers p * new / old, normalized, under
another: the logarithm of new / old in the bias of its last layer (Saerens et al., Neural
Computation 14, 2002). That holds where a class looks alike in both places, and is only more or
less frequent.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dermedge import UserError
from dermedge import data as datasets
from dermedge.data import DataError, DataSet
from dermedge.data.joint import BETWEEN, source_of
from dermedge.data.records import of_modality
from dermedge.data.tables import read_table
from dermedge.taxonomy import CLASSES
from export import ExportError
from export.runs.load import Prior, TrainedNetwork

UNIFORM = "uniform"
FORMS = (
    "uniform, the name of a data set that it was trained on, NAME=PATH of another one, "
    "CLASS=SHARE,CLASS=SHARE,..., or a table FILE.csv with the columns class and share"
)


def read_prior(
    text: str, labels: Sequence[str], data_set: DataSet | None = None, modality: str = ""
) -> Prior:
    """What --prior or --carried says, in one of `FORMS`.

    `data_set` is what was trained on, `modality` that of the pictures which a data set is counted
    by.

    Raises ExportError where it is none of them, or does not give each of the classes, and no other
    one, a share above 0.
    """
    if text == UNIFORM:
        return Prior(np.full(len(labels), 1 / len(labels)), UNIFORM)
    name, equals, _ = text.partition("=")
    if text.endswith(".csv") and not equals:
        return _of(_table(Path(text)), labels, Path(text).name)
    if equals and ("," in name or name.strip() in CLASSES):
        return _of(_spelt(text), labels, "as given")
    if equals:
        try:
            # As --data takes it: in any spelling, "~" for the home folder.
            source = datasets.parse_source(text)
        except DataError as error:
            raise ExportError(f"a prior is {FORMS}; {error}") from None
        return _counted(datasets.load(*source), "", labels, modality)
    sources = data_set.name.split(BETWEEN) if data_set else []
    if data_set and text in sources:
        return _counted(data_set, text, labels, modality)
    own = f" ({', '.join(sources)})" if sources else ""
    raise ExportError(f"a prior is {FORMS}; '{text}' is none of them{own}")


def _counted(data_set: DataSet, source: str, labels: Sequence[str], modality: str) -> Prior:
    """The classes' frequencies among the labelled pictures of a data set, or of one source."""
    counts = Counter(
        record.label
        for record in of_modality(data_set.records, modality)
        if record.label and source in ("", source_of(record.id, data_set.name))
    )
    what = f"{modality} pictures" if modality else "pictures"
    return _of(counts, labels, f"{source or data_set.name}, {sum(counts.values())} {what}")


def _spelt(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        label, equals, value = (part.strip() for part in item.partition("="))
        if not equals or label in shares:
            raise ExportError(f"a prior is {FORMS}; got '{item}'")
        shares[label] = _number(label, value)
    return shares


def _table(path: Path) -> dict[str, float]:
    table = read_table(path)
    table.need("class", "share")
    shares: dict[str, float] = {}
    for row in table.rows:
        if row.cells["class"] in shares:
            raise ExportError(f"{table.where(row)}: {row.cells['class']} is listed twice")
        shares[row.cells["class"]] = _number(row.cells["class"], row.cells["share"])
    return shares


def _number(label: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < np.inf:
        raise ExportError(f"the share of {label} in a prior must be a number above 0, got '{text}'")
    return value


def _of(shares: Mapping[str, float], labels: Sequence[str], title: str) -> Prior:
    odd = [label for label in shares if label not in labels]
    missing = [label for label in labels if not shares.get(label)]
    if odd or missing:
        words = [f"it has no {', '.join(missing)}"] if missing else []
        words += [f"{', '.join(odd)} is no class of this network"] if odd else []
        raise ExportError(
            f"the prior ({title}) must give each of {', '.join(labels)} a share above 0: "
            f"{'; '.join(words)}"
        )
    values = np.array([float(shares[label]) for label in labels])
    return Prior(values / values.sum(), title)


def log_ratio(new: Prior, old: Prior) -> np.ndarray:
    """float64 (K,): what is added to log-probabilities under `old` for those under `new`."""
    return np.asarray(np.log(new.shares) - np.log(old.shares))


def carried(
    stated: Mapping[str, float],
    asked: str,
    labels: Sequence[str],
    data_set: DataSet | None,
    modality: str = "",
) -> Prior:
    """The prior that a network carries: the one that it states, else --carried.

    Raises ExportError where neither says it, or both do, or it is 0 for a class.
    """
    if stated and asked:
        raise ExportError("--carried is for networks that state no prior; this one does")
    if never := [label for label in labels if stated and not stated.get(label)]:
        seen = ", ".join(label for label in labels if label not in never)
        raise ExportError(
            f"no picture of {', '.join(never)} was ever drawn in the training, so that nothing "
            f'moves it to another prior: leave --prior out, or train with classes="{seen}"'
        )
    if stated:
        return _of(stated, labels, "as trained")
    if asked:
        return read_prior(asked, labels, data_set, modality)
    raise ExportError(
        "the network does not state which prior its probabilities carry (it was trained by version "
        "0.2.0 or before): say it by --carried, in the forms of --prior"
    )


def with_prior(network: TrainedNetwork, asked: str, stated: str = "") -> TrainedNetwork:
    """The network under another prior: `asked` in one of `FORMS`, `stated` as `carried` takes it.

    All that is fitted afterwards weighs the pictures so that the classes are as frequent as there.
    """
    run = network.run
    try:
        learnt = run.labels, network.data_set, network.recipe.modality
        new = read_prior(asked, *learnt)
        old = carried(run.prior, stated, *learnt)
    except ExportError:
        raise
    except UserError as error:
        raise ExportError(f"--prior: {error}") from error
    model = copy.deepcopy(network.model)
    # In double precision: of a large bias and a small one the sum is not to lose the small one.
    layer = last_layer(model)
    with torch.no_grad():
        shifted = layer.bias.double() + torch.from_numpy(log_ratio(new, old))
        layer.bias.copy_(shifted.float())
    return replace(
        network,
        run=replace(run, prior=new.stated(run.labels)),
        model=model,
        prior=new,
    )


def last_layer(model: nn.Module) -> nn.Linear:
    """The layer whose bias is added to a classifier's logits."""
    head: nn.Module = model.net.head.layers  # type: ignore[union-attr,assignment]
    return [layer for layer in head.modules() if isinstance(layer, nn.Linear)][-1]
