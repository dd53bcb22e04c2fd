"""How accuracy falls as pictures get worse, and how well pictures of one lesion agree.

Each picture is read once and changed in graded ways (the corruptions of Hendrycks & Dietterich
2019 that a camera in a ward brings about); what the bundle says of it is compared with the truth
and with what it said of the unchanged picture.
"""

from __future__ import annotations

import csv
import io
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from queue import SimpleQueue

import cv2
import numpy as np
from matplotlib.figure import Figure

from benchmarks.accuracy import Chosen, count_pixels, in_threads
from benchmarks.figures import LEVEL, SEED, clusters, malignancy
from benchmarks.latency import hardware
from benchmarks.networks import Networks
from dermedge import DISCLAIMER, UserError, __version__, metrics
from dermedge.bundle import Bundle
from dermedge.datasets import DataSet, Record
from dermedge.image import ImageError, Picture, read_image, read_mask

SCHEMA = "dermedge robustness 1"
RESAMPLES = 1000
NONE = "none"

Changed = tuple[np.ndarray, "np.ndarray | None"]  # pixels, true mask


@dataclass(frozen=True)
class Change:
    """One way in which a picture gets worse.

    apply : takes uint8 (h, w, 3) RGB, the true mask bool (H, W) or None, a level and a generator;
        gives both anew. The mask may have another size than the pixels, but shows the same view.
    before : how many levels come before the unchanged picture in a plot.
    """

    title: str
    levels: tuple[float, ...]
    apply: Callable[[np.ndarray, np.ndarray | None, float, np.random.Generator], Changed]
    before: int = 0


def _jpeg(pixels, mask, quality, _):
    options = [cv2.IMWRITE_JPEG_QUALITY, int(quality)]
    _, data = cv2.imencode(".jpg", pixels[..., ::-1], options)
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]), mask


def _blur(pixels, mask, share, _):
    sigma = share / 1000 * max(pixels.shape[:2])
    return cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), mask


def _gains(pixels: np.ndarray, gains: Sequence[float]) -> np.ndarray:
    """Multiply the light of each channel; 2.2 is near enough to sRGB's curve."""
    linear = (np.arange(256) / 255) ** 2.2
    curves = [np.clip(linear * gain, 0, 1) ** (1 / 2.2) * 255 for gain in gains]
    table = np.stack(curves, axis=-1).round().astype(np.uint8)[None]
    return cv2.LUT(pixels, table)


def _light(pixels, mask, stops, _):
    return _gains(pixels, [2.0**stops] * 3), mask


def _cast(pixels, mask, warmth, _):
    return _gains(pixels, [warmth, 1.0, 1 / warmth]), mask


def _noise(pixels, mask, deviation, rng):
    noise = rng.normal(0, deviation, pixels.shape)
    return np.clip(pixels + noise, 0, 255).round().astype(np.uint8), mask


def _rotation(pixels, mask, degrees, _):
    def turn(image, border):
        height, width = image.shape[:2]
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
        return cv2.warpAffine(image, matrix, (width, height), borderMode=border)

    if mask is not None:
        mask = turn(mask.astype(np.uint8), cv2.BORDER_CONSTANT) > 0
    return turn(pixels, cv2.BORDER_REPLICATE), mask


def _crop(pixels, mask, share, _):
    def middle(image):
        edges = [round(side * (1 - share) / 2) for side in image.shape[:2]]
        height, width = image.shape[:2]
        return image[edges[0] : height - edges[0], edges[1] : width - edges[1]]

    return np.ascontiguousarray(middle(pixels)), None if mask is None else middle(mask)


CHANGES = {
    "jpeg": Change("JPEG quality", (90, 70, 50, 30, 15, 8), _jpeg),
    "blur": Change("blur, sigma in 1/1000 of the long side", (1, 2, 4, 8, 16), _blur),
    "light": Change("light, stops", (-2, -1, -0.5, 0.5, 1), _light, before=3),
    "cast": Change("colour cast, red times and blue over", (0.7, 0.85, 1.15, 1.4), _cast, before=2),
    "noise": Change("noise, standard deviation of 255", (5, 10, 20, 40), _noise),
    "rotation": Change("rotation, degrees", (15, 45, 90, 180), _rotation),
    "crop": Change("side that is left of the picture", (0.9, 0.8, 0.7, 0.6, 0.5), _crop),
}


@dataclass(frozen=True)
class _Said:
    jaccard: float  # nan without a true outline
    risk: float  # of malignancy; nan without a classifier
    triage: str | None


def robustness(
    bundle: Bundle,
    data_set: DataSet,
    chosen: Chosen,
    names: Sequence[str],
    threads: int,
    command: str,
) -> dict:
    """Accuracy at every level of the named `CHANGES`, and the agreement of repeated captures.

    Returns
    -------
    The object of robustness.json: 'curves' holds for each change its levels, the first of them
    'none'; a figure is {value, low, high} with the 95 % interval of the bootstrap over lesions or
    patients, a `_difference` is to the unchanged picture (paired). Figures that the bundle or the
    data set has no ground for are left out.

    Raises
    ------
    UserError : an unknown change, or no picture that can be read.
    """
    if unknown := [name for name in names if name not in CHANGES]:
        raise UserError(f"no change {unknown[0]!r}; there are: {', '.join(CHANGES)}")
    steps = [(NONE, 0.0)] + [(name, level) for name in names for level in CHANGES[name].levels]
    labels = bundle.manifest.labels
    # An analyzer serves one thread at a time; the threads share the cores, so each needs but one.
    idle: SimpleQueue[Networks] = SimpleQueue()
    for _ in range(threads):
        idle.put(Networks(bundle, threads=1, views=1))

    def examine(record: Record) -> list[_Said] | str:
        try:
            picture = read_image(record.image)
            truth = read_mask(record.mask) if record.mask else None
        except ImageError as error:
            return str(error)
        networks = idle.get()
        try:
            return [_say(networks, picture, truth, record, labels, *step) for step in steps]
        finally:
            idle.put(networks)

    found = list(in_threads(examine, chosen.records, threads, "robustness"))
    pairs = [(r, f) for r, f in zip(chosen.records, found, strict=True) if not isinstance(f, str)]
    unreadable = [
        {"id": r.id, "error": f}
        for r, f in zip(chosen.records, found, strict=True)
        if isinstance(f, str)
    ]
    if not pairs:
        raise UserError(f"none of the pictures could be read ({unreadable[0]['error']})")
    records = [record for record, _ in pairs]
    said = dict(zip(steps, zip(*(row for _, row in pairs), strict=True), strict=True))
    numbers, kind = clusters(records)
    groups = np.array([numbers[record.id] for record in records])
    plain = said[steps[0]]
    curves = {}
    for name in names:
        levels = [steps[0], *((name, level) for level in CHANGES[name].levels)]
        curves[name] = {
            "title": CHANGES[name].title,
            "levels": [
                {
                    "level": NONE if step == steps[0] else step[1],
                    **_figures(records, said[step], None if step == steps[0] else plain, groups),
                }
                for step in levels
            ],
        }
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
            "pictures": len(records),
            "unreadable": unreadable,
        },
        "intervals": {"clusters": kind, "resamples": RESAMPLES, "level": LEVEL, "seed": SEED},
        "curves": curves,
        "repeats": _repeats(records, plain),
        "warnings": list(chosen.warnings),
        "dermedge": __version__,
        "hardware": hardware(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
    }


def _say(networks, picture, truth, record, labels, name, level) -> _Said:
    if name != NONE:
        # Of the id, so that neither the order nor the threads decide about the noise.
        rng = np.random.default_rng(zlib.crc32(f"{record.id} {name} {level}".encode()))
        pixels, truth = CHANGES[name].apply(picture.pixels, truth, level, rng)
        scale = picture.height / picture.pixels.shape[0]
        height, width = (round(side * scale) for side in pixels.shape[:2])
        picture = Picture(pixels, height, width)
    found = networks.examine(picture, {})
    jaccard = risk = float("nan")
    if truth is not None and truth.any() and found.mask is not None:
        counts = np.array(count_pixels(found.mask, truth))[:, None]
        jaccard = float(metrics.Confusion(*counts).jaccard[0])
    if found.probabilities is not None:
        risk = float(malignancy(found.probabilities[None], labels)[0])
    return _Said(jaccard, risk, found.triage)


def _figures(
    records: Sequence[Record],
    said: Sequence[_Said],
    plain: Sequence[_Said] | None,
    groups: np.ndarray,
) -> dict:
    """Figures of one level; differences to `plain` where that is given."""
    figures = {}

    def add(name: str, statistic: Callable[[np.ndarray], float], used: np.ndarray) -> None:
        interval = metrics.bootstrap(
            statistic, int(used.sum()), groups[used], RESAMPLES, SEED, LEVEL
        )
        values = (interval.value, interval.low, interval.high)
        figures[name] = {
            key: None if np.isnan(value) else round(float(value), 6)
            for key, value in zip(("value", "low", "high"), values, strict=True)
        }

    def mean(values: np.ndarray) -> Callable[[np.ndarray], float]:
        return lambda weights: float(np.average(values, weights=weights))

    both = [said] if plain is None else [said, plain]
    jaccard = np.array([[one.jaccard for one in row] for row in both])
    outlined = ~np.isnan(jaccard).any(axis=0)
    if outlined.any():
        add("jaccard", mean(jaccard[0, outlined]), outlined)
        if plain is not None:
            add("jaccard_difference", mean(jaccard[0, outlined] - jaccard[1, outlined]), outlined)
    risk = np.array([[one.risk for one in row] for row in both])
    known = np.array([record.malignant is not None for record in records])
    known &= ~np.isnan(risk).any(axis=0)
    truth = np.array([bool(record.malignant) for record in records])[known]
    if truth.any() and not truth.all():
        add("malignant_auc", lambda w: metrics.roc_auc(risk[0, known], truth, w), known)
        if plain is not None:
            add(
                "malignant_auc_difference",
                lambda w: (
                    metrics.roc_auc(risk[0, known], truth, w)
                    - metrics.roc_auc(risk[1, known], truth, w)
                ),
                known,
            )
    if said[0].triage is not None:
        everything = np.ones(len(records), bool)
        retake = np.array([one.triage == "retake" for one in said], float)
        add("retake", mean(retake), everything)
        if plain is not None:
            same = [one.triage == before.triage for one, before in zip(said, plain, strict=True)]
            add("same_advice", mean(np.array(same, float)), everything)
    return figures


def _repeats(records: Sequence[Record], said: Sequence[_Said]) -> dict | None:
    """Agreement of the pictures of one lesion; None where no lesion has two with an estimate."""
    lesions = defaultdict(list)
    for record, one in zip(records, said, strict=True):
        if record.lesion_id and one.triage not in (None, "retake"):
            lesions[record.lesion_id].append(one)
    several = [group for group in lesions.values() if len(group) > 1]
    if not several:
        return None
    same = np.array([len({one.triage for one in group}) == 1 for group in several], float)
    spread = np.array([np.ptp([one.risk for one in group]) for group in several])
    result = {"lesions": len(several), "pictures": sum(map(len, several))}
    for name, values in (("same_advice", same), ("risk_range", spread)):
        interval = metrics.bootstrap(
            lambda w, values=values: float(np.average(values, weights=w)),
            len(values),
            None,
            RESAMPLES,
            SEED,
            LEVEL,
        )
        low, high = (None if np.isnan(x) else round(x, 6) for x in (interval.low, interval.high))
        result[name] = {"value": round(interval.value, 6), "low": low, "high": high}
    return result


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


_LINES = {  # colours of different brightness, so that black and white keeps them apart
    "jaccard": ("Jaccard", "#10454f", "-", "o"),
    "malignant_auc": ("AUC, malignant or not", "#c2603a", "--", "s"),
    "retake": ("asked to take again", "#8a8a8a", ":", "^"),
}


def plot(result: dict) -> bytes:
    """The curves as a picture (PNG), a panel a change; bars are 95 % intervals."""
    curves = result["curves"]
    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.1 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    for axes, (name, curve) in zip(grid.flat, curves.items(), strict=False):
        plain, *levels = curve["levels"]
        before = CHANGES[name].before
        levels = [*levels[:before], plain, *levels[before:]]
        places = range(len(levels))
        for measure, (title, colour, dash, mark) in _LINES.items():
            points = [
                (place, entry[measure])
                for place, entry in zip(places, levels, strict=True)
                if measure in entry and entry[measure]["low"] is not None
            ]
            if not points:
                continue
            x, found = zip(*points, strict=True)
            value, low, high = (np.array([f[key] for f in found]) for key in found[0])
            axes.errorbar(
                x,
                value,
                yerr=[np.maximum(value - low, 0), np.maximum(high - value, 0)],
                color=colour,
                linestyle=dash,
                marker=mark,
                markersize=4,
                linewidth=1.5,
                capsize=2,
                label=title,
            )
        axes.set_title(curve["title"], fontsize=9, loc="left")
        axes.set_xticks(places, [f"{entry['level']}" for entry in levels], fontsize=8)
        axes.set_ylim(0, 1)
        axes.grid(axis="y", linewidth=0.4)
        axes.spines[["top", "right"]].set_visible(False)
    handles, titles = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    data = result["data"]
    figure.suptitle(
        f"{result['bundle']['name']} on {data['name']}, part {data['part']}, "
        f"{data['pictures']} pictures; 95 % intervals",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def table(result: dict) -> str:
    """The result for people, as plain text."""
    data = result["data"]
    lines = [
        f"{result['bundle']['name']} on {data['name']}, part {data['part']}: "
        f"{data['pictures']} pictures; 95 % intervals over {result['intervals']['clusters']}"
    ]
    for curve in result["curves"].values():
        lines += ["", curve["title"]]
        for entry in curve["levels"]:
            shown = [
                f"{measure.replace('_', ' ')} {_shown(entry[measure])}"
                for measure in ("jaccard", "malignant_auc", "retake", "same_advice")
                if measure in entry
            ]
            lines.append(f"  {entry['level']!s:>6}  " + "; ".join(shown))
    if repeats := result["repeats"]:
        lines += [
            "",
            f"{repeats['lesions']} lesions with several pictures ({repeats['pictures']}): the same "
            f"advice for all of a lesion's {_shown(repeats['same_advice'])}, range of its risk "
            f"{_shown(repeats['risk_range'])}",
        ]
    lines += [f"not read: {entry['id']}: {entry['error']}" for entry in data["unreadable"]]
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    return "\n".join(lines)


def _shown(figure: dict) -> str:
    if figure["low"] is None:
        return "-" if figure["value"] is None else f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"
