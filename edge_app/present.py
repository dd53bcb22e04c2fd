"""What the screens say, as plain values: an analysis in, words, colours and shapes out."""

from __future__ import annotations

from dataclasses import dataclass, field

from dermedge.quality import TITLES as QUALITY
from dermedge.taxonomy import TITLES as CLASSES
from edge_app import theme
from edge_app.theme import Style
from edge_app.worker import Snapshot

Outline = list[list[list[float]]]  # closed polygons of [x, y], px of the whole picture

DEMO = "Demonstration model: trained on drawn pictures, not on skin. Its estimates mean nothing."


@dataclass(frozen=True)
class Band:
    """A triage result. Shape and words carry what the colour carries."""

    title: str
    advice: str
    style: Style
    shape: str  # 'circle', 'triangle', 'octagon' or 'square'
    mark: str  # drawn inside of the shape


BANDS = {
    "low": Band(
        "Low risk",
        "Keep an eye on it: take a picture again in a few weeks. If it changes, itches or bleeds, "
        "show it to a doctor whatever this screen says.",
        theme.LOW,
        "circle",
        "✓",
    ),
    "see a doctor": Band(
        "Raised risk: see a doctor",
        "Have a doctor look at this spot within the next weeks. Many such spots prove harmless; "
        "only an examination can tell.",
        theme.DOCTOR,
        "triangle",
        "!",
    ),
    "urgent": Band(
        "High risk: see a doctor soon",
        "Arrange an appointment with a skin doctor in the next days and take this picture along. "
        "Only an examination can tell what it is.",
        theme.URGENT,
        "octagon",
        "!",
    ),
    "retake": Band(
        "No estimate: take the picture again",
        "This picture cannot be judged. Mend what is named below and take a new one.",
        theme.RETAKE,
        "square",
        "?",
    ),
}


@dataclass(frozen=True)
class LiveView:
    """The live screen's words."""

    guidance: str = ""
    style: Style = theme.GUIDE_WAIT
    outline: Outline = field(default_factory=list)
    extent: tuple[int, int] = (1, 1)  # (width, height), px, that the outline refers to
    can_capture: bool = False
    source: str = ""


@dataclass(frozen=True)
class ResultView:
    """The result screen's words."""

    band: Band
    estimate: str  # the number behind the band, empty where there is none
    outline: Outline
    extent: tuple[int, int]  # (width, height), px, that the outline refers to
    remarks: tuple[str, ...]  # on the picture's quality
    classes: tuple[tuple[str, str], ...]  # likely classes: title, percentage
    measures: tuple[tuple[str, str], ...]  # ABCD: name, value
    limits: tuple[str, ...]  # of this estimate, empty where there is none
    versions: str
    demonstration: str  # empty for a bundle trained on skin


def live(snapshot: Snapshot, notice: str = "") -> LiveView:
    """What the live screen shows for a snapshot; `notice` (a failed capture) goes before all."""
    analysis = snapshot.analysis
    seen = analysis is not None and snapshot.frame is not None
    outline = analysis["lesion"]["polygons"] if seen else []
    if snapshot.busy:
        text, style = "Saving and analysing. You may move the camera away.", theme.GUIDE_GOOD
    elif bad := notice or snapshot.fault or snapshot.failure:
        text, style = bad, theme.GUIDE_BAD
    elif not seen:
        text, style = "Looking at the picture.", theme.GUIDE_WAIT
    elif not analysis["quality"]["ok"]:
        # One thing at a time: the reasons come gravest first.
        text, style = _remarks(analysis)[0], theme.GUIDE_WAIT
    else:
        text, style = "Good picture. Hold still and press the button.", theme.GUIDE_GOOD
    return LiveView(
        guidance=text,
        style=style,
        outline=outline,
        extent=tuple(analysis["size"]) if seen else (1, 1),
        can_capture=snapshot.frame is not None and not snapshot.busy,
        source=snapshot.source or "no source",
    )


def result(analysis: dict) -> ResultView:
    """What the result screen shows for an analysis (as `analysis.schema.json` describes it)."""
    judged = analysis["triage"] != "retake"
    risk = analysis["malignancy"]
    likely = sorted(analysis["probabilities"].items(), key=lambda item: -item[1])
    versions = analysis["versions"]
    return ResultView(
        band=BANDS[analysis["triage"]],
        estimate=f"Estimated risk of a malignant lesion: {_percent(risk)}" if judged else "",
        outline=analysis["lesion"]["polygons"],
        extent=tuple(analysis["size"]),
        remarks=_remarks(analysis),
        # Numbers from a picture that cannot be judged would only look like knowledge.
        classes=tuple((CLASSES[n], _percent(v)) for n, v in likely) if judged else (),
        measures=_measures(analysis) if judged else (),
        limits=_limits(analysis) if judged else (),
        versions=(
            f"{versions['bundle']} ({versions['bundle_sha256'][:12]}), "
            f"dermedge {versions['dermedge']}, {versions['runtime']}. Rule: {analysis['rule']}."
        ),
        demonstration=DEMO if versions["procedural"] else "",
    )


def _remarks(analysis: dict) -> tuple[str, ...]:
    return tuple(QUALITY[code] for code in analysis["quality"]["reasons"])


def _measures(analysis: dict) -> tuple[tuple[str, str], ...]:
    abcd = analysis["abcd"]
    scales = {
        "asymmetry": ("A  Asymmetry", "{:g} of 2"),
        "border": ("B  Border", "{:g} of 8"),
        "color": ("C  Colours", "{:g} of 6"),
        "diameter_mm": ("D  Diameter", "{:.1f} mm"),
    }
    return tuple(
        (title, form.format(abcd[key]) if abcd[key] is not None else "size unknown")
        for key, (title, form) in scales.items()
    )


def _limits(analysis: dict) -> tuple[str, ...]:
    limits = ["One picture shows less than an examination: no touch, no history, no second view."]
    if analysis["abcd"]["diameter_mm"] is None:
        limits.append("The size in millimetres is unknown: nothing in the picture gives a scale.")
    limits.append(
        "Only what the model was trained on can come out: "
        + ", ".join(CLASSES[name] for name in analysis["probabilities"])
        + "."
    )
    return tuple(limits)


def _percent(value: float) -> str:
    return "below 1%" if value < 0.01 else "above 99%" if value > 0.99 else f"{value:.0%}"
