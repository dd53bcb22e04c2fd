"""How accuracy falls as pictures get worse, and how well pictures of one lesion agree.

Each picture is read once and corrupted in graded ways (those of Hendrycks & Dietterich 2019 that a
camera in a ward brings about); what the bundle says of it is compared with the truth and with what
it said of the picture as it is.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.accuracy import intervals
from benchmarks.accuracy.evaluate import count_pixels
from benchmarks.accuracy.figures import malignancy
from benchmarks.accuracy.intervals import Figure, Share, Statistic, weighted_mean
from benchmarks.accuracy.networks import Networks
from benchmarks.accuracy.selection import Selection
from benchmarks.corruptions.corruptions import CORRUPTIONS, applied
from benchmarks.corruptions.measure import about_data, head, pass_over, tail
from benchmarks.schema.names import ROBUSTNESS
from dermedge import UserError
from dermedge.bundle.bundle import Bundle
from dermedge.data import DataSet, Record
from dermedge.evaluation import metrics
from dermedge.image.read import Picture

NONE = "none"  # the picture as it is

Step = tuple[str, float]  # corruption and level


@dataclass(frozen=True)
class Answer:
    """What a bundle said of one picture."""

    jaccard: float  # nan without a true outline
    risk: float  # of malignancy; nan without a classifier
    triage: str | None


def check_names(names: Sequence[str]) -> None:
    """UserError where there is no such corruption."""
    if unknown := [name for name in names if name not in CORRUPTIONS]:
        raise UserError(f"no corruption {unknown[0]!r}; there are: {', '.join(CORRUPTIONS)}")


def robustness(
    bundle: Bundle,
    data_set: DataSet,
    selection: Selection,
    names: Sequence[str],
    threads: int,
    command: str,
) -> dict:
    """Accuracy at every level of the named `CORRUPTIONS`, and the agreement of repeated captures.

    Returns
    -------
    The object of robustness.json: 'curves' holds for each corruption its levels, the first of them
    'none'; a figure is {value, low, high} with the 95 % interval of the bootstrap over lesions or
    patients, a `_difference` is to the picture as it is (paired). Figures that the bundle or the
    data set has no ground for are left out.

    Raises
    ------
    UserError : an unknown corruption, or no picture that can be read.
    """
    check_names(names)
    steps: list[Step] = [(NONE, 0.0)]
    steps += [(name, level) for name in names for level in CORRUPTIONS[name].levels]
    labels = bundle.manifest.labels

    def work(
        networks: Networks, picture: Picture, truth: np.ndarray | None, record: Record
    ) -> list[Answer]:
        return [_answer(networks, picture, truth, record, labels, *step) for step in steps]

    done = pass_over(bundle, selection, threads, "robustness", work)
    answers = dict(zip(steps, zip(*done.answers, strict=True), strict=True))
    plain = answers[steps[0]]
    curves = {}
    for name in names:
        first = {"level": NONE, **_figures(done.records, plain, None, done.groups)}
        worse = [
            {"level": level, **_figures(done.records, answers[name, level], plain, done.groups)}
            for level in CORRUPTIONS[name].levels
        ]
        curves[name] = {"title": CORRUPTIONS[name].title, "levels": [first, *worse]}
    result = {
        **head(ROBUSTNESS, bundle),
        "data": about_data(data_set, selection, done),
        "intervals": intervals.about(done.kind),
        "curves": curves,
        "repeats": repeats(done.records, plain, done.groups),
        **tail(selection, command),
    }
    model = bundle.manifest.models.get("classifier")
    if model is not None and model.metadata:
        result["warnings"].append(
            f"the classifier was not given {', '.join(model.metadata)}, as by `dermedge evaluate "
            "--no-metadata`"
        )
    return result


def _answer(
    networks: Networks,
    picture: Picture,
    truth: np.ndarray | None,
    record: Record,
    labels: tuple[str, ...],
    name: str,
    level: float,
) -> Answer:
    if name != NONE:
        picture, truth = applied(name, CORRUPTIONS[name], level, picture, truth, record.id)
    outputs = networks.examine(picture, {})
    jaccard = risk = float("nan")
    if truth is not None and truth.any() and outputs.mask is not None:
        counts = np.array(count_pixels(outputs.mask, truth))[:, None]
        jaccard = float(metrics.Confusion(*counts).jaccard[0])
    if outputs.probabilities is not None:
        risk = float(malignancy(outputs.probabilities[None], labels)[0])
    return Answer(jaccard, risk, outputs.triage)


def _figures(
    records: Sequence[Record],
    answers: Sequence[Answer],
    plain: Sequence[Answer] | None,
    groups: np.ndarray,
) -> dict[str, Figure]:
    """Figures of one level; differences to `plain` where that is given."""
    figures: dict[str, Figure] = {}

    def add(name: str, statistic: Statistic, used: np.ndarray) -> None:
        figures[name] = intervals.interval(statistic, groups[used])

    both = [answers] if plain is None else [answers, plain]
    jaccard = np.array([[one.jaccard for one in row] for row in both])
    outlined = ~np.isnan(jaccard).any(axis=0)
    if outlined.any():
        own = jaccard[:, outlined]
        add("jaccard", weighted_mean(own[0]), outlined)
        if plain is not None:
            add("jaccard_difference", weighted_mean(own[0] - own[1]), outlined)
    risk = np.array([[one.risk for one in row] for row in both])
    known = np.array([record.malignant is not None for record in records])
    known &= ~np.isnan(risk).any(axis=0)
    truth = np.array([bool(record.malignant) for record in records])[known]
    if truth.any() and not truth.all():
        own_auc, plain_auc = (metrics.Ranking(risk[k, known], truth).roc_auc for k in (0, -1))
        add("malignant_auc", own_auc, known)
        if plain is not None:
            add("malignant_auc_difference", lambda w: own_auc(w) - plain_auc(w), known)
    if answers[0].triage is not None:
        everything = np.ones(len(records), bool)
        retake = np.array([one.triage == "retake" for one in answers])
        add("retake", Share(retake), everything)
        if plain is not None:
            pairs = zip(answers, plain, strict=True)
            same = np.array([one.triage == before.triage for one, before in pairs])
            add("same_advice", Share(same), everything)
    return figures


def repeats(
    records: Sequence[Record], answers: Sequence[Answer], groups: np.ndarray
) -> dict | None:
    """Agreement of the pictures of one lesion, and what their mean is worth.

    `groups`, int (pictures,), is the lesion or patient of each picture: lesions of one patient are
    drawn together.

    Returns
    -------
    None where no lesion has two pictures with an estimate. 'single_auc' is over the pictures, each
    of n of a lesion with the weight 1 / n, 'together_auc' of the means over the lesions; where
    those are not all malignant or all benign.
    """
    lesions, cluster_of = defaultdict(list), {}
    for record, one, cluster in zip(records, answers, groups, strict=True):
        if record.lesion_id and one.triage not in (None, "retake"):
            lesions[record.lesion_id].append((one, record.malignant))
            cluster_of[record.lesion_id] = cluster
    several = {name: pictures for name, pictures in lesions.items() if len(pictures) > 1}
    if not several:
        return None
    known = {name: group for name, group in several.items() if group[0][1] is not None}
    result: dict = {"lesions": len(several), "pictures": sum(map(len, several.values()))}

    def add(name: str, statistic: Statistic, used: Iterable[str]) -> None:
        drawn = np.array([cluster_of[lesion] for lesion in used])
        result[name] = intervals.interval(statistic, drawn)

    same = [len({one.triage for one, _ in group}) == 1 for group in several.values()]
    spread = [np.ptp([one.risk for one, _ in group]) for group in several.values()]
    add("same_advice", Share(np.array(same)), several)
    add("risk_range", weighted_mean(np.array(spread, float)), several)
    truth = np.array([bool(group[0][1]) for group in known.values()])
    if truth.any() and not truth.all():
        single, combined = _auc_of_repeats(
            [np.array([one.risk for one, _ in group]) for group in known.values()], truth
        )
        result["known"], result["malignant"] = len(known), int(truth.sum())
        add("single_auc", single, known)
        add("together_auc", combined, known)
        add("auc_difference", lambda w: combined(w) - single(w), known)
    return result


def _auc_of_repeats(risks: Sequence[np.ndarray], truth: np.ndarray) -> tuple[Statistic, Statistic]:
    """Of single pictures and of the means, from the risks of each lesion's; under the weights of
    the lesions. `truth` is bool (lesions,)."""
    counts = np.array([len(group) for group in risks])
    pictures = metrics.Ranking(np.concatenate(risks), np.repeat(truth, counts))
    means = metrics.Ranking(np.array([group.mean() for group in risks]), truth)
    return lambda weights: pictures.roc_auc(np.repeat(weights / counts, counts)), means.roc_auc


def to_csv(result: dict) -> str:
    """One line a figure: change, level, measure, value, low, high."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["change", "level", "measure", "value", "low", "high"])
    for name, curve in result["curves"].items():
        for entry in curve["levels"]:
            for measure, figure in entry.items():
                if measure != "level":
                    writer.writerow([name, entry["level"], measure, *figure.values()])
    return buffer.getvalue()
