"""How well the quality gate tells spoilt pictures from good ones.

Each picture is spoilt in the graded ways of `benchmarks.pictures.changes.SPOILINGS` and given to
the bundle as `dermedge analyze` would give it. A positive is a spoilt picture, a negative the same
pictures as they were published, good or not: what is wrong with those counts as a false alarm.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from queue import SimpleQueue

import numpy as np
from matplotlib.figure import Figure

from benchmarks.accuracy.chosen import Chosen
from benchmarks.accuracy.evaluate import commit, in_threads
from benchmarks.accuracy.figures import LEVEL, SEED, clusters, shown
from benchmarks.accuracy.networks import Networks
from benchmarks.pictures.changes import SPOILINGS, CannotSpoil, applied
from benchmarks.report.plots import against_levels, png
from benchmarks.speed.latency import hardware
from dermedge import DISCLAIMER, UserError, __version__
from dermedge.bundle.bundle import ROLES, Bundle
from dermedge.data import DataSet, Record
from dermedge.data.masks import read_lesion_mask
from dermedge.evaluation import metrics
from dermedge.image.read import ImageError, read_image
from dermedge.lesion.quality import LIMITS, TITLES, Quality

SCHEMA = "dermedge gate 1"
RESAMPLES = 1000
# Codes whose highest score speaks for a group, and what the issue of a usable picture rests upon.
GROUPS = {
    "blur": ("too_blurred",),
    "light": ("too_dark", "too_bright"),
    "framing": ("no_lesion", "cut_off", "too_near", "too_far"),
}
OVERALL = tuple(name for name, limit in LIMITS.items() if limit.refused is not None) + ("too_near",)


@dataclass(frozen=True)
class _Judged:
    record: int  # its place among the pictures
    quality: Quality

    def worst(self, reasons: Sequence[str]) -> float:
        """The highest score of `reasons`; one that could not be measured counts as usual."""
        return max(self.quality.scores.get(name, 0.0) for name in reasons)


def gate(bundle: Bundle, data_set: DataSet, chosen: Chosen, threads: int, command: str) -> dict:
    """Judge the chosen pictures as they are and spoilt; framing and glare need a true mask.

    Returns
    -------
    The object of gate.json. A figure is {value, low, high} with the 95 % interval of the bootstrap
    over lesions or patients. 'spoilings' holds for each its levels: the AUC of the reasons that
    name it against the unspoilt pictures, the share that is told one of them, the share that is
    refused for whatever reason. 'groups' and 'overall' take the unusable levels together.

    Raises
    ------
    UserError : a bundle of one role, or no picture that can be read.
    """
    if missing := set(ROLES) - set(bundle.manifest.models):
        raise UserError(f"{bundle.path} has no {missing.pop()}: the gate needs a whole bundle")
    records = chosen.records
    # An analyzer serves one thread at a time; the threads share the cores, so each needs but one.
    idle: SimpleQueue[Networks] = SimpleQueue()
    for _ in range(threads):
        idle.put(Networks(bundle, threads=1, views=1))
    steps = [(name, level) for name, way in SPOILINGS.items() for level in way.levels]

    def examine(record: Record) -> dict[tuple[str, float] | None, Quality] | str:
        try:
            picture = read_image(record.image)
            truth = None
            if record.mask:
                truth = read_lesion_mask(record.mask, picture.height, picture.width)
        except ImageError as error:
            return str(error)
        networks = idle.get()
        try:
            found = {None: networks.examine(picture, {}).quality}
            for name, level in steps:
                try:
                    spoilt, _ = applied(name, SPOILINGS[name], level, picture, truth, record.id)
                except CannotSpoil:
                    continue
                found[name, level] = networks.examine(spoilt, {}).quality
            return found
        finally:
            idle.put(networks)

    rows = list(in_threads(examine, records, threads, "gate"))
    unreadable = [
        {"id": record.id, "error": row}
        for record, row in zip(records, rows, strict=True)
        if isinstance(row, str)
    ]
    read = [r for r, row in zip(records, rows, strict=True) if not isinstance(row, str)]
    rows = [row for row in rows if not isinstance(row, str)]
    if not rows:
        raise UserError(f"none of the pictures could be read ({unreadable[0]['error']})")
    numbers, kind = clusters(chosen.records, chosen.same)
    judge = _Judge(np.array([numbers[record.id] for record in read]))

    def judged(step) -> list[_Judged]:
        return [_Judged(number, row[step]) for number, row in enumerate(rows) if step in row]

    good = judged(None)
    spoilings, unusable = {}, {name: [] for name in GROUPS}
    for name, way in SPOILINGS.items():
        levels = []
        # Towards the worse, whichever way the numbers run.
        bad = way.levels[way.levels.index(way.unusable) :]
        for level in way.levels:
            spoilt = judged((name, level))
            if level in bad and way.group in unusable:
                unusable[way.group] += spoilt
            entry = {"level": level, "unusable": level in bad, "pictures": len(spoilt)}
            if spoilt:
                entry |= {
                    "auc": judge.auc(spoilt, good, way.reasons),
                    "told": judge.share(
                        spoilt, lambda one, way=way: bool({*way.reasons} & {*one.quality.reasons})
                    ),
                    "refused": judge.share(spoilt, lambda one: not one.quality.usable),
                }
            levels.append(entry)
        spoilings[name] = {
            "title": way.title,
            "group": way.group,
            "reasons": list(way.reasons),
            "levels": levels,
        }
    everything = [one for group in unusable.values() for one in group]
    return {
        "schema": SCHEMA,
        "disclaimer": DISCLAIMER,
        "bundle": {"name": bundle.manifest.name, "sha256": bundle.sha256},
        "data": {
            "name": data_set.name,
            "part": chosen.part,
            "split": chosen.source,
            "split_sha256": chosen.split.sha256 if chosen.split else None,
            "limit": chosen.limit,
            "pictures": len(read),
            "with_mask": sum(record.mask is not None for record in read),
            "unreadable": unreadable,
        },
        "intervals": {"clusters": kind, "resamples": RESAMPLES, "level": LEVEL, "seed": SEED},
        "limits": {
            name: {"usual": limit.usual, "told": limit.reported, "refused": limit.refused}
            for name, limit in LIMITS.items()
        },
        "groups": {
            name: {
                "reasons": list(reasons),
                "spoilt": len(unusable[name]),
                "auc": judge.auc(unusable[name], good, reasons),
                "refused": judge.share(unusable[name], lambda one: not one.quality.usable),
            }
            for name, reasons in GROUPS.items()
            if unusable[name]
        },
        "overall": {
            "reasons": list(OVERALL),
            "spoilt": len(everything),
            "auc": judge.auc(everything, good, OVERALL),
            "refused": judge.share(everything, lambda one: not one.quality.usable),
        },
        "false_alarms": {
            "refused": judge.share(good, lambda one: not one.quality.usable),
            "told": judge.share(good, lambda one: not one.quality.ok),
            **{
                name: judge.share(good, lambda one, name=name: name in one.quality.reasons)
                for name in TITLES
            },
        },
        "good": {
            name: np.quantile(
                [one.quality.scores.get(name, 0.0) for one in good], [0.5, 0.9, 0.95, 0.98]
            )
            .round(3)
            .tolist()
            for name in TITLES
        },
        "spoilings": spoilings,
        "warnings": list(chosen.warnings),
        "dermedge": __version__,
        "commit": commit(),
        "hardware": hardware(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
    }


class _Judge:
    """Figures with intervals over `groups`, int (pictures,): the cluster of each picture."""

    def __init__(self, groups: np.ndarray):
        self._groups = groups

    def auc(self, spoilt: list[_Judged], good: list[_Judged], reasons: Sequence[str]) -> dict:
        both = [*spoilt, *good]
        scores = np.array([one.worst(reasons) for one in both])
        bad = np.arange(len(both)) < len(spoilt)
        return self._figure(lambda w: metrics.roc_auc(scores, bad, w), both)

    def share(self, judged: list[_Judged], holds) -> dict:
        values = np.array([holds(one) for one in judged], float)
        return self._figure(lambda w: float(np.average(values, weights=w)), judged)

    def _figure(self, statistic, judged: list[_Judged]) -> dict:
        groups = self._groups[[one.record for one in judged]]
        found = metrics.bootstrap(statistic, len(judged), groups, RESAMPLES, SEED, LEVEL)
        return {
            key: None if np.isnan(value) else round(float(value), 6)
            for key, value in (("value", found.value), ("low", found.low), ("high", found.high))
        }


def to_csv(result: dict) -> str:
    """One line a figure: what, level, unusable, pictures, measure, value, low, high."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["what", "level", "unusable", "pictures", "measure", "value", "low", "high"])
    for name, spoiling in result["spoilings"].items():
        for entry in spoiling["levels"]:
            about = [name, entry["level"], int(entry["unusable"]), entry["pictures"]]
            for measure in ("auc", "told", "refused"):
                if measure in entry:
                    writer.writerow([*about, measure, *entry[measure].values()])
    for name, group in (*result["groups"].items(), ("overall", result["overall"])):
        for measure in ("auc", "refused"):
            writer.writerow([name, "", 1, group["spoilt"], measure, *group[measure].values()])
    pictures = result["data"]["pictures"]
    for name, figure in result["false_alarms"].items():
        writer.writerow(["good", "", 0, pictures, f"false alarm: {name}", *figure.values()])
    return buffer.getvalue()


_LINES = {  # colours of different brightness, so that black and white keeps them apart
    "auc": ("AUC of the reason", "#10454f", "-", "o"),
    "told": ("told", "#c2603a", "--", "s"),
    "refused": ("refused", "#8a8a8a", ":", "^"),
}


def plot(result: dict) -> bytes:
    """A panel a spoiling (PNG); levels on grey ground are unusable, bars are 95 % intervals."""
    spoilings = result["spoilings"]
    figure = Figure(figsize=(13.6, 10), layout="constrained")
    grid = figure.subplots(-(-len(spoilings) // 4), 4, squeeze=False, sharey=True)
    for axes in grid.flat[len(spoilings) :]:
        axes.set_visible(False)
    for axes, spoiling in zip(grid.flat, spoilings.values(), strict=False):
        levels = spoiling["levels"]
        for place, entry in enumerate(levels):
            if entry["unusable"]:
                axes.axvspan(place - 0.5, place + 0.5, color="#eeeae4", linewidth=0)
        for measure, style in _LINES.items():
            against_levels(axes, levels, measure, *style)
        axes.set_title(spoiling["title"], fontsize=9, loc="left")
        axes.set_xticks(range(len(levels)), [f"{entry['level']}" for entry in levels], fontsize=8)
        axes.set_xlim(-0.5, len(levels) - 0.5)
        axes.set_ylim(0, 1.02)
        axes.grid(axis="y", linewidth=0.4)
        axes.spines[["top", "right"]].set_visible(False)
    handles, titles = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    data = result["data"]
    title = (
        f"Quality gate, {result['bundle']['name']} on {data['name']}, part {data['part']}, "
        f"{data['pictures']} pictures; grey: has to be taken again; 95 % intervals"
    )
    return png(figure, title, dpi=110)


def table(result: dict) -> str:
    """The result for people, as plain text."""
    data = result["data"]
    lines = [
        f"quality gate, {result['bundle']['name']} on {data['name']}, part {data['part']}: "
        f"{data['pictures']} pictures ({data['with_mask']} with a mask); 95 % intervals over "
        f"{result['intervals']['clusters']}",
        "",
        "unusable against unspoilt pictures",
    ]
    for name, group in (*result["groups"].items(), ("overall", result["overall"])):
        lines.append(
            f"  {name:<8} {group['spoilt']:>6} pictures; AUC {shown(group['auc'])}; "
            f"refused {shown(group['refused'])}"
        )
    lines += ["", "false alarms on unspoilt pictures"]
    for name, figure in result["false_alarms"].items():
        typical = f"; score {result['good'][name]}" if name in result["good"] else ""
        lines.append(f"  {name:<16} {shown(figure)}{typical}")
    for spoiling in result["spoilings"].values():
        lines += ["", f"{spoiling['title']} ({', '.join(spoiling['reasons'])})"]
        for entry in spoiling["levels"]:
            told = "".join(
                f"; {measure} {shown(entry[measure])}"
                for measure in ("auc", "told", "refused")
                if measure in entry
            )
            mark = "*" if entry["unusable"] else " "
            lines.append(f" {mark}{entry['level']!s:>6} {entry['pictures']:>5} pictures{told}")
    lines += ["", "* has to be taken again"]
    lines += [f"not read: {entry['id']}: {entry['error']}" for entry in data["unreadable"]]
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    return "\n".join(lines)
