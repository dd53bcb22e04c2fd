"""From what each picture gave to figures, with the intervals of `benchmarks.accuracy.intervals`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.accuracy import intervals
from benchmarks.accuracy.intervals import Figure, Share, Statistic, weighted_mean
from benchmarks.schema.names import COLOUR, NETWORKS
from dermedge.bundle.manifest import Thresholds
from dermedge.data import Record
from dermedge.evaluation import metrics
from dermedge.taxonomy import MALIGNANT

SENSITIVITY = 0.95  # at which a specificity is read off this part's own ROC curve


@dataclass(frozen=True)
class Row:
    """What one picture gave. Counts are tp, fp, fn, tn in px of the mask file."""

    record: Record
    cluster: int  # pictures of one lesion or patient share it
    error: str | None = None
    triage: str | None = None  # None: the bundle has one role only, and gives no advice
    probabilities: np.ndarray | None = None  # float64 (labels,)
    likely: str | None = None  # the class that the bundle names
    distance: float | None = None  # from the pictures that it learnt from
    ood: bool = False  # beyond the bundle's limit of the distance
    counts: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)  # by method
    features: np.ndarray | None = None


def segmentation(name: str, baseline: bool, rows: Sequence[Row]) -> dict:
    """Figures of the outlines that the method `name` drew."""
    used = [row for row in rows if name in row.counts]
    pixels = counts(used, name)
    measured = {
        measure: interval(weighted_mean(getattr(pixels, measure)), used)
        for measure in (
            *("jaccard", "threshold_jaccard", "dice"),
            *("sensitivity", "specificity", "accuracy"),
        )
    }

    def pooled(measure: str) -> Statistic:
        return lambda weights: float(getattr(pixels.pooled(weights), measure)[0])

    for measure in ("jaccard", "dice"):
        measured[f"pooled_{measure}"] = interval(pooled(measure), used)
    return {
        "name": name,
        "task": "segmentation",
        "baseline": baseline,
        "count": len(used),
        "metrics": measured,
    }


def classification(
    name: str,
    baseline: bool,
    rows: Sequence[Row],
    stated: np.ndarray,
    labels: tuple[str, ...],
    limits: Thresholds | None = None,
) -> dict:
    """Figures of classes and malignancy.

    Parameters
    ----------
    stated : float64 (rows, labels), the method's probabilities.
    limits : the bundle's thresholds, whose operating points and named classes are then measured;
        None: the method has none, and names the most probable class.
    """
    known = [place for place, row in enumerate(rows) if row.record.malignant is not None]
    named = [place for place, row in enumerate(rows) if row.record.label in labels]
    measured = malignancy_figures([rows[place] for place in known], stated[known], labels, limits)
    measured |= _melanoma_figures(rows, stated, labels)
    result = {
        "name": name,
        "task": "classification",
        "baseline": baseline,
        "count": len(known) or len(named),
        "labelled": len(named),
        "malignant": sum(bool(rows[place].record.malignant) for place in known),
        "metrics": measured,
        "per_class": {},
        "confusion": [],
        "calibration": [],
    }
    if not named:
        return result
    used, shares = [rows[place] for place in named], stated[named]
    truth = np.array([labels.index(str(row.record.label)) for row in used])
    top = shares.argmax(axis=1)
    likely = None if limits is None else np.array([labels.index(str(r.likely)) for r in used])
    measured |= _class_figures(used, shares, truth, likely)
    by_name = top if likely is None else likely
    return result | {
        "per_class": _per_class(used, shares, truth, by_name, labels),
        "confusion": metrics.confusion_matrix(by_name, truth, len(labels)).astype(int).tolist(),
        "calibration": _calibration(shares.max(axis=1), top == truth),
    }


def _melanoma_figures(
    rows: Sequence[Row], stated: np.ndarray, labels: tuple[str, ...]
) -> dict[str, Figure]:
    # "other" may be a melanoma in words that fit no class, unless it is called benign.
    certain = [
        place
        for place, row in enumerate(rows)
        if row.record.label not in (None, "other") or row.record.malignant is False
    ]
    if "mel" not in labels or not certain:
        return {}
    used = [rows[place] for place in certain]
    truth = np.array([row.record.label == "mel" for row in used])
    scores = stated[certain, labels.index("mel")]
    return {"melanoma_auc": interval(metrics.Ranking(scores, truth).roc_auc, used)}


def _class_figures(
    rows: Sequence[Row], shares: np.ndarray, truth: np.ndarray, likely: np.ndarray | None
) -> dict[str, Figure]:
    """Over all classes. `truth`, int (rows,), and `likely` (None: the method names none) are places
    among the classes, `shares` float64 (rows, classes)."""
    top, classes = shares.argmax(axis=1), shares.shape[1]

    def figure(statistic: Callable[..., float], *values: object) -> Figure:
        return interval(lambda weights: statistic(*values, weights=weights), rows)

    ranked = metrics.rankings(shares, truth)
    found = {
        "macro_auc": interval(
            lambda w: metrics.mean(np.array([one.roc_auc(w) for one in ranked])), rows
        ),
        "balanced_accuracy": figure(metrics.balanced_accuracy, top, truth, classes),
    }
    if likely is not None:
        found["likely_balanced_accuracy"] = figure(
            metrics.balanced_accuracy, likely, truth, classes
        )
    return found | {
        "class_accuracy": interval(Share(top == truth), rows),
        "brier": interval(weighted_mean(metrics.squared_errors(shares, truth)), rows),
        "ece": figure(metrics.calibration_error, shares.max(axis=1), top == truth),
    }


def _per_class(
    rows: Sequence[Row],
    shares: np.ndarray,
    truth: np.ndarray,
    likely: np.ndarray,
    labels: tuple[str, ...],
) -> dict[str, dict]:
    ranked = metrics.rankings(shares, truth)
    figures = {}
    for number, label in enumerate(labels):
        one = truth == number
        if one.any():
            right = (likely == number) == one
            figures[label] = {
                "count": int(one.sum()),
                "auc": interval(ranked[number].roc_auc, rows),
                "average_precision": interval(ranked[number].average_precision, rows),
                "sensitivity": _share(right, one, rows),
                "specificity": _share(right, ~one, rows),
            }
    return figures


def malignancy_figures(
    rows: Sequence[Row], stated: np.ndarray, labels: tuple[str, ...], limits: Thresholds | None
) -> dict:
    """Figures of malignant against benign; {} without rows. All rows say which they are."""
    if not rows:
        return {}
    truth = np.array([row.record.malignant for row in rows], bool)
    scores = malignancy(stated, labels)
    ranking = metrics.Ranking(scores, truth)
    # With signs and classes swapped, it gives the specificity.
    swapped = metrics.Ranking(-scores, ~truth)
    measured = {
        "malignant_auc": interval(ranking.roc_auc, rows),
        "malignant_average_precision": interval(ranking.average_precision, rows),
        "malignant_brier": interval(weighted_mean(metrics.squared_errors(scores, truth)), rows),
        "specificity_at_95": interval(
            lambda w: swapped.sensitivity_at_specificity(SENSITIVITY, w), rows
        ),
    }
    if limits is not None:
        for point, limit in (("malignant", limits.see_doctor), ("urgent", limits.urgent)):
            right = (scores >= limit) == truth
            measured[f"{point}_sensitivity"] = _share(right, truth, rows)
            measured[f"{point}_specificity"] = _share(right, ~truth, rows)
    return measured


def malignancy(stated: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
    """float64 (rows,): the probabilities of the malignant classes together, 0 to 1."""
    return stated[:, [label in MALIGNANT for label in labels]].sum(axis=1)


def jaccard_difference(rows: Sequence[Row], baseline: str) -> dict:
    """Networks minus another method that outlines, on the same pictures."""
    used = [row for row in rows if baseline in row.counts]
    ours, others = (counts(used, name).jaccard for name in (NETWORKS, baseline))
    figure = difference(weighted_mean(ours), weighted_mean(others), used)
    return {"metric": "jaccard", "baseline": baseline, **figure}


def auc_difference(
    rows: Sequence[Row], ours: np.ndarray, simple: np.ndarray, labels: tuple[str, ...]
) -> dict:
    """Networks minus colour statistics; `ours` and `simple` are float64 (rows, labels)."""
    known = [place for place, row in enumerate(rows) if row.record.malignant is not None]
    truth = np.array([rows[place].record.malignant for place in known])
    risks = (malignancy(stated[known], labels) for stated in (ours, simple))
    first, second = (metrics.Ranking(risk, truth).roc_auc for risk in risks)
    figure = difference(first, second, [rows[place] for place in known])
    return {"metric": "malignant_auc", "baseline": COLOUR, **figure}


def ood_share(rows: Sequence[Row]) -> Figure | None:
    """Share of pictures marked as out of distribution; None where the bundle gives no distance."""
    scored = [row for row in rows if row.distance is not None]
    return _flagged(scored) if scored else None


def out_of_distribution(rows: Sequence[Row], others: Sequence[Row]) -> dict:
    """How well `distance` separates pictures that show no lesion (`others`) from the measured ones.

    'auc' : of distance, higher for the others; 'flagged' : share of them beyond the threshold;
    'retaken' : share of them that get no estimate, be it for their quality; None where the bundle
    gives no advice. The same for each kind, the first part of an id.
    """
    kinds: dict[str, list[Row]] = {}
    for row in others:
        kinds.setdefault(row.record.id.partition("/")[0], []).append(row)

    def figures(members: Sequence[Row]) -> dict:
        both = [*(row for row in rows if row.distance is not None), *members]
        distances = np.array([row.distance for row in both])
        truth = np.arange(len(both)) >= len(both) - len(members)
        advised = all(row.triage for row in members)
        retaken = np.array([row.triage == "retake" for row in members])
        return {
            "pictures": len(members),
            "auc": interval(metrics.Ranking(distances, truth).roc_auc, both),
            "flagged": _flagged(members),
            "retaken": interval(Share(retaken), members) if advised else None,
        }

    return {
        **figures(others),
        "kinds": {kind: figures(members) for kind, members in sorted(kinds.items())},
    }


def _flagged(rows: Sequence[Row]) -> Figure:
    return interval(Share(np.array([row.ood for row in rows])), rows)


def counts(rows: Sequence[Row], method: str) -> metrics.Confusion:
    """Pixels of each row, one or more, by the method that outlined them."""
    # In float64, which holds them exactly and multiplies faster.
    return metrics.Confusion(*np.array([row.counts[method] for row in rows], np.float64).T.copy())


def _share(right: np.ndarray, among: np.ndarray, rows: Sequence[Row]) -> Figure:
    """Figure of the share of `right` in the rows where `among` is true; bool (rows,) each."""
    subset = [row for row, member in zip(rows, among, strict=True) if member]
    return interval(Share(right[among]), subset)


def _calibration(confidence: np.ndarray, right: np.ndarray) -> list[dict]:
    index = np.clip(np.ceil(confidence * 10).astype(int) - 1, 0, 9)  # of ten bins
    return [
        {
            "count": int((index == number).sum()),
            "confidence": round(float(confidence[index == number].mean()), 6),
            "accuracy": round(float(right[index == number].mean()), 6),
        }
        for number in np.unique(index)
    ]


def interval(statistic: Statistic, rows: Sequence[Row]) -> Figure:
    """The statistic of all rows, with its interval over their clusters."""
    return intervals.interval(statistic, _clusters(rows))


def difference(ours: Statistic, other: Statistic, rows: Sequence[Row]) -> Figure:
    """As `interval`, of ours - other on the same rows."""
    return intervals.difference(ours, other, _clusters(rows))


def _clusters(rows: Sequence[Row]) -> np.ndarray:
    return np.array([row.cluster for row in rows], int)
