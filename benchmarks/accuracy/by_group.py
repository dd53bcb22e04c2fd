"""Figures of groups of people, and how far the groups are apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.accuracy import figures
from benchmarks.accuracy.figures import Row
from benchmarks.accuracy.intervals import Share, Statistic, weighted_mean
from benchmarks.schema.names import GROUP_MEASURES, GROUP_MINIMUM, NETWORKS
from dermedge.bundle.manifest import Thresholds
from dermedge.data.groups import NOT_STATED, SCALES, Scale, members
from dermedge.evaluation import metrics


@dataclass(frozen=True, eq=False)
class _Measure:
    """A measure of one group: its rows (of all that were measured), and its statistic on them."""

    places: np.ndarray  # int (m,)
    statistic: Statistic  # of the weights of those m
    judged: bool  # whether there are `GROUP_MINIMUM` of each kind that it needs


def by_group(
    rows: Sequence[Row], labels: tuple[str, ...], limits: Thresholds
) -> tuple[list[dict], list[dict]]:
    """Figures of the groups of each scale, and their gaps; none of a scale that nobody states.

    Returns
    -------
    Groups, each a dict of 'scale' (a key of `dermedge.data.groups.SCALES`), 'group', 'pictures',
    'outlines', 'malignant', 'benign', 'metrics' (of `GROUP_MEASURES`) and 'too_few': the measures
    for which fewer than `GROUP_MINIMUM` pictures of a kind that they need are there, so that the
    group cannot be judged by them.

    Gaps, each a dict of 'scale', 'measure', 'kind', 'groups', 'pictures', 'value', 'low', 'high':
    'difference' is of the first group that can be judged minus the last one (of skin: lightest
    minus darkest), both in each resample; 'worst' is the lowest value that any of those groups has
    in a resample. Whoever does not state it is no group of a gap: why it is missing may say what
    the lesion is.
    """
    groups: list[dict] = []
    gaps: list[dict] = []
    for scale in SCALES.values():
        found = members([row.record for row in rows], scale)
        measured = {name: _measures(rows, places, labels, limits) for name, places in found.items()}
        for name, places in found.items():
            groups.append(_group(scale, name, rows, places, measured[name]))
        for measure in GROUP_MEASURES:
            judged = {
                name: own[measure]
                for name, own in measured.items()
                if name != NOT_STATED and measure in own and own[measure].judged
            }
            gaps += _gaps(scale, measure, judged, rows)
    return groups, gaps


def _group(
    scale: Scale,
    name: str,
    rows: Sequence[Row],
    places: Sequence[int],
    measured: dict[str, _Measure],
) -> dict:
    known = [place for place in places if _known(rows[place])]
    malignant = sum(bool(rows[place].record.malignant) for place in known)
    return {
        "scale": scale.field,
        "group": name,
        "pictures": len(places),
        "outlines": sum(NETWORKS in rows[place].counts for place in places),
        "malignant": malignant,
        "benign": len(known) - malignant,
        "metrics": {
            measure: figures.interval(one.statistic, [rows[place] for place in one.places])
            for measure, one in measured.items()
        },
        "too_few": [measure for measure, one in measured.items() if not one.judged],
    }


def _known(row: Row) -> bool:
    return row.record.malignant is not None and row.probabilities is not None


def _measures(
    rows: Sequence[Row], places: Sequence[int], labels: tuple[str, ...], limits: Thresholds
) -> dict[str, _Measure]:
    """Those of `GROUP_MEASURES` that the rows at `places` have anything for."""
    found = {}
    if drawn := [place for place in places if NETWORKS in rows[place].counts]:
        jaccards = figures.counts([rows[place] for place in drawn], NETWORKS).jaccard
        enough = len(drawn) >= GROUP_MINIMUM
        found["jaccard"] = _Measure(np.array(drawn), weighted_mean(jaccards), enough)
    known = np.array([place for place in places if _known(rows[place])], int)
    if not len(known):
        return found
    stated = np.array([rows[place].probabilities for place in known])
    risk = figures.malignancy(stated, labels)
    truth = np.array([rows[place].record.malignant for place in known], bool)
    kinds = (int(truth.sum()), int((~truth).sum()))
    if min(kinds):
        auc = metrics.Ranking(risk, truth).roc_auc
        found["malignant_auc"] = _Measure(known, auc, min(kinds) >= GROUP_MINIMUM)
    right = (risk >= limits.see_doctor) == truth
    for measure, among in (("malignant_sensitivity", truth), ("malignant_specificity", ~truth)):
        if among.any():
            enough = int(among.sum()) >= GROUP_MINIMUM
            found[measure] = _Measure(known[among], Share(right[among]), enough)
    return found


def _gaps(scale: Scale, measure: str, judged: dict[str, _Measure], rows: Sequence[Row]) -> list:
    """The gaps of one measure; [] where fewer than two groups can be judged."""
    if len(judged) < 2:
        return []
    (first, one), *_, (last, other) = judged.items()
    parts = {name: m.statistic(np.ones(len(m.places))) for name, m in judged.items()}
    worst = min(parts, key=lambda name: parts[name])

    def difference(values: list[float]) -> float:
        return values[0] - values[1]

    head = {"scale": scale.field, "measure": measure}
    return [
        {**head, "kind": "difference", "groups": [first, last]}
        | _over([one, other], difference, rows),
        {**head, "kind": "worst", "groups": [worst]} | _over(list(judged.values()), _lowest, rows),
    ]


def _lowest(values: list[float]) -> float:
    # A group that a resample left without a kind has no value there: neither has the lowest.
    return float(np.min(values))


def _over(
    measures: Sequence[_Measure], combine: Callable[[list[float]], float], rows: Sequence[Row]
) -> dict:
    """Figure of what is combined of several groups, which lie in the same resamples."""
    ends = np.cumsum([len(measure.places) for measure in measures])
    used = [rows[place] for measure in measures for place in measure.places]

    def statistic(weights: np.ndarray) -> float:
        parts = np.split(weights, ends[:-1])
        return combine([m.statistic(w) for m, w in zip(measures, parts, strict=True)])

    return {"pictures": len(used), **figures.interval(statistic, used)}
