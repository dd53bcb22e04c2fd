"""From what each picture gave to figures with bootstrap intervals, over lesions and patients.

A figure is {'value', 'low', 'high'}: the limits are those of the 95 % interval, and None stands
for what cannot be computed (JSON has no nan).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.accuracy.baselines import COLOUR, OTSU
from dermedge.bundle.bundle import Thresholds
from dermedge.data import Record
from dermedge.data.split import group_records
from dermedge.evaluation import metrics
from dermedge.taxonomy import MALIGNANT

NETWORKS = "networks of the bundle"
LEVEL = 0.95
RESAMPLES = 1000
SEED = 0
SENSITIVITY = 0.95  # at which a specificity is read off this part's own ROC curve
SKIN_TYPES = {"I-II": (1, 2), "III-IV": (3, 4), "V-VI": (5, 6), "not stated": (None,)}

TITLES = {
    "jaccard": "Jaccard",
    "threshold_jaccard": "Jaccard, thresholded at 0.65",
    "dice": "Dice",
    "sensitivity": "Sensitivity of pixels",
    "specificity": "Specificity of pixels",
    "accuracy": "Accuracy of pixels",
    "pooled_jaccard": "Jaccard, pixels pooled",
    "pooled_dice": "Dice, pixels pooled",
    "malignant_auc": "AUC, malignant or not",
    "malignant_average_precision": "Average precision, malignant",
    "malignant_sensitivity": "Sensitivity at “see a doctor”",
    "malignant_specificity": "Specificity at “see a doctor”",
    "urgent_sensitivity": "Sensitivity at “urgent”",
    "urgent_specificity": "Specificity at “urgent”",
    "specificity_at_95": "Specificity at sensitivity 0.95 of this part",
    "malignant_brier": "Brier score, malignant or not",
    "melanoma_auc": "AUC, melanoma against the rest",
    "macro_auc": "AUC, mean over classes",
    "balanced_accuracy": "Balanced accuracy, most probable class",
    "likely_balanced_accuracy": "Balanced accuracy, class that is named",
    "class_accuracy": "Accuracy, most probable class",
    "brier": "Brier score, classes",
    "ece": "Expected calibration error",
}


@dataclass(frozen=True)
class Row:
    """What one picture gave. Counts are tp, fp, fn, tn in px of the mask file."""

    record: Record
    cluster: int  # pictures of one lesion or patient share it
    error: str | None = None
    triage: str | None = None  # None: the bundle has one role only, and judges nothing
    probabilities: np.ndarray | None = None  # float64 (labels,)
    likely: str | None = None  # the class that the bundle names
    distance: float | None = None  # from the pictures that it learnt from
    unfamiliar: bool = False
    counts: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)  # by method
    features: np.ndarray | None = None


def clusters(
    records: Iterable[Record], same: Iterable[tuple[str, str]] = ()
) -> tuple[dict[str, int], str]:
    """Number of the cluster of each id, and what the clusters are.

    same : pairs of ids that show one lesion or patient, beside what the records themselves say.
    """
    records, same = list(records), list(same)
    patients = any(record.patient_id for record in records)
    lesions = any(record.lesion_id for record in records) or (bool(same) and not patients)
    kinds = [name for name, known in (("lesions", lesions), ("patients", patients)) if known]
    groups = enumerate(group_records(records, same))
    numbers = {record.id: number for number, group in groups for record in group}
    return numbers, " and ".join(kinds) or "pictures"


def segmentation(name: str, baseline: bool, rows: Sequence[Row]) -> dict:
    """Figures of the outlines that the method `name` drew."""
    used = [row for row in rows if name in row.counts]
    counts = _counts(used, name)
    found = {
        measure: interval(weighted_mean(getattr(counts, measure)), used)
        for measure in (
            *("jaccard", "threshold_jaccard", "dice"),
            *("sensitivity", "specificity", "accuracy"),
        )
    }
    for measure in ("jaccard", "dice"):
        found[f"pooled_{measure}"] = interval(
            lambda weights, measure=measure: float(getattr(counts.pooled(weights), measure)[0]),
            used,
        )
    return {
        "name": name,
        "task": "segmentation",
        "baseline": baseline,
        "count": len(used),
        "metrics": found,
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
    limits : the bundle's thresholds, whose operating points and named classes are then judged;
        None: the method has none, and names the most probable class.
    """
    known = [place for place, row in enumerate(rows) if row.record.malignant is not None]
    named = [place for place, row in enumerate(rows) if row.record.label in labels]
    found = malignancy_figures([rows[place] for place in known], stated[known], labels, limits)
    result = {
        "name": name,
        "task": "classification",
        "baseline": baseline,
        "count": len(known) or len(named),
        "labelled": len(named),
        "malignant": sum(bool(rows[place].record.malignant) for place in known),
        "metrics": found,
        "per_class": {},
        "confusion": [],
        "calibration": [],
    }
    # "other" may be a melanoma in words that fit no class, unless it is called benign.
    told = [
        place
        for place, row in enumerate(rows)
        if row.record.label not in (None, "other") or row.record.malignant is False
    ]
    if "mel" in labels and told:
        used = [rows[place] for place in told]
        truth = np.array([row.record.label == "mel" for row in used])
        scores = stated[told, labels.index("mel")]
        found["melanoma_auc"] = interval(metrics.Ranking(scores, truth).roc_auc, used)
    if not named:
        return result
    used, shares = [rows[place] for place in named], stated[named]
    truth = np.array([labels.index(row.record.label) for row in used])
    top, classes = shares.argmax(axis=1), len(labels)
    likely = top if limits is None else np.array([labels.index(row.likely) for row in used])

    def figure(statistic: Callable[..., float], *values: object) -> dict:
        return interval(lambda weights: statistic(*values, weights=weights), used)

    ranked = metrics.rankings(shares, truth)
    found["macro_auc"] = interval(
        lambda w: metrics.mean(np.array([one.roc_auc(w) for one in ranked])), used
    )
    found["balanced_accuracy"] = figure(metrics.balanced_accuracy, top, truth, classes)
    if limits is not None:
        found["likely_balanced_accuracy"] = figure(
            metrics.balanced_accuracy, likely, truth, classes
        )
    found["class_accuracy"] = interval(weighted_mean((top == truth).astype(float)), used)
    found["brier"] = interval(weighted_mean(metrics.squared_errors(shares, truth)), used)
    found["ece"] = figure(metrics.calibration_error, shares.max(axis=1), top == truth)
    for number, label in enumerate(labels):
        one = truth == number
        if one.any():
            right = (likely == number) == one
            result["per_class"][label] = {
                "count": int(one.sum()),
                "auc": interval(ranked[number].roc_auc, used),
                "average_precision": interval(ranked[number].average_precision, used),
                "sensitivity": _share(right, one, used),
                "specificity": _share(right, ~one, used),
            }
    result["confusion"] = metrics.confusion_matrix(likely, truth, classes).astype(int).tolist()
    result["calibration"] = _calibration(shares.max(axis=1), top == truth)
    return result


def malignancy_figures(
    rows: Sequence[Row], stated: np.ndarray, labels: tuple[str, ...], limits: Thresholds | None
) -> dict:
    """Figures of malignant against benign; {} without rows. All rows say which they are."""
    if not rows:
        return {}
    truth = np.array([row.record.malignant for row in rows], bool)
    scores = malignancy(stated, labels)
    ranking = metrics.Ranking(scores, truth)
    # With signs and classes turned about, it gives the specificity.
    turned = metrics.Ranking(-scores, ~truth)
    found = {
        "malignant_auc": interval(ranking.roc_auc, rows),
        "malignant_average_precision": interval(ranking.average_precision, rows),
        "malignant_brier": interval(weighted_mean(metrics.squared_errors(scores, truth)), rows),
        "specificity_at_95": interval(
            lambda w: turned.sensitivity_at_specificity(SENSITIVITY, w), rows
        ),
    }
    if limits is not None:
        for point, limit in (("malignant", limits.see_doctor), ("urgent", limits.urgent)):
            right = (scores >= limit) == truth
            found[f"{point}_sensitivity"] = _share(right, truth, rows)
            found[f"{point}_specificity"] = _share(right, ~truth, rows)
    return found


def malignancy(stated: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
    """float64 (rows,): the probabilities of the malignant classes together, 0 to 1."""
    return stated[:, [label in MALIGNANT for label in labels]].sum(axis=1)


def jaccard_difference(rows: Sequence[Row]) -> dict:
    """Networks minus Otsu's threshold on the same pictures."""
    used = [row for row in rows if OTSU in row.counts]
    ours, simple = (_counts(used, name).jaccard for name in (NETWORKS, OTSU))
    found = difference(weighted_mean(ours), weighted_mean(simple), used)
    return {"metric": "jaccard", "baseline": OTSU, **found}


def auc_difference(
    rows: Sequence[Row], ours: np.ndarray, simple: np.ndarray, labels: tuple[str, ...]
) -> dict:
    """Networks minus colour statistics; `ours` and `simple` are float64 (rows, labels)."""
    known = [place for place, row in enumerate(rows) if row.record.malignant is not None]
    truth = np.array([rows[place].record.malignant for place in known])
    first, second = (malignancy(stated[known], labels) for stated in (ours, simple))
    first, second = (metrics.Ranking(scores, truth).roc_auc for scores in (first, second))
    found = difference(first, second, [rows[place] for place in known])
    return {"metric": "malignant_auc", "baseline": COLOUR, **found}


def by_skin_type(rows: Sequence[Row], labels: tuple[str, ...], limits: Thresholds) -> list[dict]:
    """Figures of each group of skin types; none where no picture states its skin type."""
    if all(row.record.skin_type is None for row in rows):
        return []
    groups = []
    for name, types in SKIN_TYPES.items():
        members = [row for row in rows if row.record.skin_type in types]
        if not members:
            continue
        found = {}
        if drawn := [row for row in members if NETWORKS in row.counts]:
            found["jaccard"] = interval(weighted_mean(_counts(drawn, NETWORKS).jaccard), drawn)
        known = [
            row
            for row in members
            if row.record.malignant is not None and row.probabilities is not None
        ]
        stated = np.array([row.probabilities for row in known])
        all_of_them = malignancy_figures(known, stated, labels, limits)
        for measure in ("malignant_auc", "malignant_sensitivity", "malignant_specificity"):
            if measure in all_of_them:
                found[measure] = all_of_them[measure]
        groups.append(
            {
                "skin_type": name,
                "pictures": len(members),
                "outlines": len(drawn),
                "malignant": sum(bool(row.record.malignant) for row in known),
                "metrics": found,
            }
        )
    return groups


def unfamiliar_share(rows: Sequence[Row]) -> dict | None:
    """Share of pictures marked as unlike the learnt ones; None where no distance is told."""
    told = [row for row in rows if row.distance is not None]
    return _flagged(told) if told else None


def unlike(rows: Sequence[Row], others: Sequence[Row]) -> dict:
    """How well `distance` tells pictures that show no lesion (`others`) from the measured ones.

    'auc' : of distance, higher for the others; 'flagged' : share of them beyond the threshold;
    'retaken' : share of them that get no estimate, be it for their quality; None where the bundle
    judges nothing. The same for each kind, the first part of an id.
    """
    kinds: dict[str, list[Row]] = {}
    for row in others:
        kinds.setdefault(row.record.id.partition("/")[0], []).append(row)

    def figures(chosen: Sequence[Row]) -> dict:
        both = [*(row for row in rows if row.distance is not None), *chosen]
        distances = np.array([row.distance for row in both])
        truth = np.arange(len(both)) >= len(both) - len(chosen)
        judged = all(row.triage for row in chosen)
        retaken = np.array([row.triage == "retake" for row in chosen], float)
        return {
            "pictures": len(chosen),
            "auc": interval(metrics.Ranking(distances, truth).roc_auc, both),
            "flagged": _flagged(chosen),
            "retaken": interval(weighted_mean(retaken), chosen) if judged else None,
        }

    return {
        **figures(others),
        "kinds": {kind: figures(members) for kind, members in sorted(kinds.items())},
    }


def _flagged(rows: Sequence[Row]) -> dict:
    return interval(weighted_mean(np.array([row.unfamiliar for row in rows], float)), rows)


def _counts(rows: Sequence[Row], method: str) -> metrics.Confusion:
    # In float64, which holds them exactly and multiplies faster.
    return metrics.Confusion(*np.array([row.counts[method] for row in rows], np.float64).T.copy())


def _share(right: np.ndarray, among: np.ndarray, rows: Sequence[Row]) -> dict:
    """Figure of the share of `right` in the rows where `among` is true; bool (rows,) each."""
    subset = [row for row, member in zip(rows, among, strict=True) if member]
    return interval(weighted_mean(right[among].astype(float)), subset)


def _calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> list[dict]:
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return [
        {
            "count": int((index == number).sum()),
            "confidence": round(float(confidence[index == number].mean()), 6),
            "accuracy": round(float(right[index == number].mean()), 6),
        }
        for number in np.unique(index)
    ]


def weighted_mean(values: np.ndarray) -> Callable[[np.ndarray], float]:
    """For `interval`: mean of float (rows,) under the weights of a resample."""

    def mean(weights: np.ndarray) -> float:
        total = weights.sum()
        # Not `@`: from 10,000 rows on BLAS would wake its threads for each of these.
        return float((weights * values).sum() / total) if total > 0 else float("nan")

    return mean


def interval(statistic: Callable[[np.ndarray], float], rows: Sequence[Row]) -> dict:
    """'value', 'low' and 'high' by bootstrap over the rows' clusters; None where there is none."""
    groups = np.array([row.cluster for row in rows], int)
    return _rounded(metrics.bootstrap(statistic, len(rows), groups, RESAMPLES, SEED, LEVEL))


def difference(
    ours: Callable[[np.ndarray], float],
    simple: Callable[[np.ndarray], float],
    rows: Sequence[Row],
) -> dict:
    """As `interval`, of ours - simple; both see the same resamples."""
    groups = np.array([row.cluster for row in rows], int)
    return _rounded(
        metrics.bootstrap_difference(ours, simple, len(rows), groups, RESAMPLES, SEED, LEVEL)
    )


def _rounded(found: metrics.Interval) -> dict:
    return {
        name: None if np.isnan(value) else round(value, 6)
        for name, value in (("value", found.value), ("low", found.low), ("high", found.high))
    }


def shown(figure: dict) -> str:
    """A figure and its interval, where it has them, for people."""
    if figure["low"] is None:
        return "-" if figure["value"] is None else f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"
