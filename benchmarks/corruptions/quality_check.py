"""How well the picture-quality check separates corrupted pictures from good ones.

Each picture is corrupted in the graded ways of `QUALITY_CORRUPTIONS` and analysed as
`dermedge analyze` would. A positive is a corrupted picture, a negative the same pictures as they
were published, good or not: what is wrong with those counts as a false alarm.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.accuracy import intervals
from benchmarks.accuracy.intervals import Figure, Share, Statistic
from benchmarks.accuracy.networks import Networks
from benchmarks.accuracy.selection import Selection
from benchmarks.corruptions.corruptions import (
    QUALITY_CORRUPTIONS,
    NotApplicable,
    QualityCorruption,
    applied,
)
from benchmarks.corruptions.measure import about_data, head, pass_over, tail
from benchmarks.schema.names import QUALITY
from dermedge import UserError
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import ROLES
from dermedge.data import DataSet, Record
from dermedge.evaluation import metrics
from dermedge.image.read import Picture
from dermedge.lesion.quality import LIMITS, TITLES, Quality

# Codes whose highest score speaks for a group, and what the issue of a usable picture rests upon.
GROUPS = {
    "blur": ("too_blurred",),
    "light": ("too_dark", "too_bright"),
    "framing": ("no_lesion", "cut_off", "too_near", "too_far"),
}
OVERALL = tuple(name for name, limit in LIMITS.items() if limit.refused is not None) + ("too_near",)

Step = tuple[str, float]  # corruption and level
Checked = dict["Step | None", Quality]  # None: the picture as it is


@dataclass(frozen=True)
class _Sample:
    record: int  # its place among the pictures
    quality: Quality

    def worst(self, reasons: Sequence[str]) -> float:
        """The highest score of `reasons`; one that could not be measured counts as usual."""
        return max(self.quality.scores.get(name, 0.0) for name in reasons)


def quality_check(
    bundle: Bundle, data_set: DataSet, selection: Selection, threads: int, command: str
) -> dict:
    """Check the selected pictures as they are and corrupted; framing and glare need a true mask.

    Returns
    -------
    The object of quality.json. A figure is {value, low, high} with the 95 % interval of the
    bootstrap over lesions or patients. 'corruptions' holds for each corruption its levels: the AUC
    of the reasons that name it against the pictures as they are, the share that is reported one of
    them, the share that is refused for whatever reason. 'groups' and 'overall' pool the unusable
    levels.

    Raises
    ------
    UserError : a bundle of one role, or no picture that can be read.
    """
    if missing := set(ROLES) - set(bundle.manifest.models):
        raise UserError(
            f"{bundle.path} has no {missing.pop()}: the quality check needs a whole bundle"
        )
    done = pass_over(bundle, selection, threads, "quality check", _check)
    figures = _Figures(done.groups)

    def samples(step: Step | None) -> list[_Sample]:
        return [_Sample(k, row[step]) for k, row in enumerate(done.answers) if step in row]

    good = samples(None)
    corrupted = {
        name: {level: samples((name, level)) for level in way.levels}
        for name, way in QUALITY_CORRUPTIONS.items()
    }
    unusable = _unusable(corrupted)
    everything = [one for group in unusable.values() for one in group]
    with_mask = sum(record.mask is not None for record in done.records)
    return {
        **head(QUALITY, bundle),
        "data": about_data(data_set, selection, done) | {"with_mask": with_mask},
        "intervals": intervals.about(done.kind),
        "limits": {
            name: {"usual": limit.usual, "reported": limit.reported, "refused": limit.refused}
            for name, limit in LIMITS.items()
        },
        "groups": {
            name: figures.pooled(unusable[name], good, reasons)
            for name, reasons in GROUPS.items()
            if unusable[name]
        },
        "overall": figures.pooled(everything, good, OVERALL),
        "false_alarms": figures.false_alarms(good),
        "good": {name: _typical(good, name) for name in TITLES},
        "corruptions": {
            name: figures.corruption(way, corrupted[name], good)
            for name, way in QUALITY_CORRUPTIONS.items()
        },
        **tail(selection, command),
    }


def _check(
    networks: Networks, picture: Picture, truth: np.ndarray | None, record: Record
) -> Checked:
    checked: Checked = {None: _quality(networks, picture)}
    for name, way in QUALITY_CORRUPTIONS.items():
        for level in way.levels:
            try:
                corrupted, _ = applied(name, way, level, picture, truth, record.id)
            except NotApplicable:
                continue
            checked[name, level] = _quality(networks, corrupted)
    return checked


def _quality(networks: Networks, picture: Picture) -> Quality:
    quality = networks.examine(picture, {}).quality
    assert quality is not None  # a bundle of both roles always checks it
    return quality


def _bad(way: QualityCorruption) -> tuple[float, ...]:
    """The unusable levels: towards the worse, whichever way the numbers run."""
    return way.levels[way.levels.index(way.unusable) :]


def _unusable(corrupted: dict[str, dict[float, list[_Sample]]]) -> dict[str, list[_Sample]]:
    """The samples of unusable levels, by group."""
    unusable: dict[str, list[_Sample]] = {name: [] for name in GROUPS}
    for name, way in QUALITY_CORRUPTIONS.items():
        if way.group in unusable:
            for level in _bad(way):
                unusable[way.group] += corrupted[name][level]
    return unusable


def _typical(good: list[_Sample], name: str) -> list[float]:
    """Median, 90th, 95th and 98th percentile of a score of the pictures as they are."""
    scores = [one.quality.scores.get(name, 0.0) for one in good]
    return np.quantile(scores, [0.5, 0.9, 0.95, 0.98]).round(3).tolist()


class _Figures:
    """Figures with intervals over `groups`, int (pictures,): the cluster of each picture."""

    def __init__(self, groups: np.ndarray):
        self._groups = groups

    def corruption(
        self, way: QualityCorruption, levels: dict[float, list[_Sample]], good: list[_Sample]
    ) -> dict:
        """What the result says of a corruption, from the samples of each level."""
        return {
            "title": way.title,
            "group": way.group,
            "reasons": list(way.reasons),
            "levels": [self.level(way, level, levels[level], good) for level in way.levels],
        }

    def level(
        self, way: QualityCorruption, level: float, samples: list[_Sample], good: list[_Sample]
    ) -> dict:
        """What the result says of one level of a corruption."""
        entry = {"level": level, "unusable": level in _bad(way), "pictures": len(samples)}
        if not samples:
            return entry
        named = {*way.reasons}
        return entry | {
            "auc": self._auc(samples, good, way.reasons),
            "reported": self._share(samples, lambda one: bool(named & {*one.quality.reasons})),
            "refused": self._refused(samples),
        }

    def pooled(self, samples: list[_Sample], good: list[_Sample], reasons: Sequence[str]) -> dict:
        """What the result says of unusable pictures of a group."""
        return {
            "reasons": list(reasons),
            "corrupted": len(samples),
            "auc": self._auc(samples, good, reasons),
            "refused": self._refused(samples),
        }

    def false_alarms(self, good: list[_Sample]) -> dict[str, Figure]:
        """What is reported of pictures as they are."""
        return {
            "refused": self._refused(good),
            "reported": self._share(good, lambda one: not one.quality.ok),
            **{name: self._named(good, name) for name in TITLES},
        }

    def _named(self, samples: list[_Sample], reason: str) -> Figure:
        return self._share(samples, lambda one: reason in one.quality.reasons)

    def _refused(self, samples: list[_Sample]) -> Figure:
        return self._share(samples, lambda one: not one.quality.usable)

    def _auc(self, samples: list[_Sample], good: list[_Sample], reasons: Sequence[str]) -> Figure:
        both = [*samples, *good]
        scores = np.array([one.worst(reasons) for one in both])
        bad = np.arange(len(both)) < len(samples)
        return self._figure(metrics.Ranking(scores, bad).roc_auc, both)

    def _share(self, samples: list[_Sample], holds: Callable[[_Sample], bool]) -> Figure:
        return self._figure(Share(np.array([holds(one) for one in samples])), samples)

    def _figure(self, statistic: Statistic, samples: list[_Sample]) -> Figure:
        return intervals.interval(statistic, self._groups[[one.record for one in samples]])


def to_csv(result: dict) -> str:
    """One line a figure: what, level, unusable, pictures, measure, value, low, high."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["what", "level", "unusable", "pictures", "measure", "value", "low", "high"])
    for name, corruption in result["corruptions"].items():
        for entry in corruption["levels"]:
            about = [name, entry["level"], int(entry["unusable"]), entry["pictures"]]
            for measure in ("auc", "reported", "refused"):
                if measure in entry:
                    writer.writerow([*about, measure, *entry[measure].values()])
    for name, group in (*result["groups"].items(), ("overall", result["overall"])):
        for measure in ("auc", "refused"):
            writer.writerow([name, "", 1, group["corrupted"], measure, *group[measure].values()])
    pictures = result["data"]["pictures"]
    for name, figure in result["false_alarms"].items():
        writer.writerow(["good", "", 0, pictures, f"false alarm: {name}", *figure.values()])
    return buffer.getvalue()
