"""What a picture's analysis says to a person, as plain values: words, styles and shapes.

It needs no more than the core and the language, so that a browser's page says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dermedge.analysis import lesion_outline
from dermedge.combine import Combined
from dermedge.lesion import quality
from dermedge.taxonomy import TITLES as CLASSES
from dermedge.triage import RULES
from edge_app.i18n import language
from edge_app.i18n.language import N_, Message, _, n_

Outline = list[list[list[float]]]  # closed polygons of [x, y], px of the whole picture

OUT_OF_DISTRIBUTION = N_("The model learnt from no pictures like this one.")
DEMO = N_(
    "Demonstration model: trained on drawn pictures, not on skin. Its estimates mean nothing."
)


@dataclass(frozen=True)
class Band:
    """A triage result. Shape and words carry what the colour carries."""

    title: str
    advice: str
    style: str  # of edge_app.ui.theme
    shape: str  # 'circle', 'triangle', 'octagon' or 'square'
    mark: str  # drawn inside of the shape


BANDS = {
    "low": Band(
        N_("Low risk"),
        N_(
            "Keep an eye on it: take a picture again in a few weeks. If it changes, itches or "
            "bleeds, show it to a doctor whatever it says here."
        ),
        "low",
        "circle",
        "i",  # not a check mark: nothing was cleared
    ),
    "see a doctor": Band(
        N_("Raised risk: see a doctor"),
        N_(
            "Have a doctor look at this spot within the next weeks. Many such spots prove "
            "harmless; only an examination can tell."
        ),
        "doctor",
        "triangle",
        "!",
    ),
    "urgent": Band(
        N_("High risk: see a doctor soon"),
        N_(
            "Arrange an appointment with a skin doctor in the next days and take this picture "
            "along. Only an examination can tell what it is."
        ),
        "urgent",
        "octagon",
        "!",
    ),
    "retake": Band(
        N_("No estimate: take the picture again"),
        N_("This picture cannot be judged. Mend what is named below and take a new one."),
        "retake",
        "square",
        "?",
    ),
}

TERMS = (
    N_(
        "dermedge estimates the risk of a spot from its picture, for research. It is not a "
        "diagnosis and not a medical device. It can be wrong in both directions."
    ),
    N_(
        "If a spot changes, itches, bleeds or worries you, show it to a doctor, whatever this app "
        "says."
    ),
    N_(
        "Pictures and results stay on this device, without place and other hidden data. Nothing "
        "is sent anywhere unless you export or send it yourself."
    ),
)


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
    several: str = ""  # what several pictures of the lesion say beside their mean


def result(analysis: Mapping, together: Combined | None = None, others: int = 0) -> ResultView:
    """What the result screen shows.

    Parameters
    ----------
    analysis : of the picture that is shown, as `analysis.schema.json` describes it.
    together : what all pictures of the lesion say, where there are several; the risk is theirs.
    others : so many are of other days, and no part of it.
    """
    triage = together.triage if together else analysis["triage"]
    risk = together.malignancy if together else analysis["malignancy"]
    chances = together.probabilities if together else analysis["probabilities"]
    usable = triage != "retake"
    likely = sorted(chances.items(), key=lambda item: -item[1])
    versions = analysis["versions"]
    return ResultView(
        band=spoken(BANDS[triage]),
        estimate=_("Estimated risk of a malignant lesion: {risk}", risk=percent(risk))
        if usable and risk is not None
        else "",
        outline=lesion_outline(analysis),
        extent=tuple(analysis["size"]),
        remarks=remarks(analysis),
        # Numbers from a picture that cannot be judged would only look like knowledge.
        classes=tuple((_(CLASSES[n]), percent(v)) for n, v in likely) if usable else (),
        # Of the picture, which may have been refused where others of the lesion were not.
        measures=_measures(analysis) if analysis["triage"] != "retake" else (),
        limits=_limits(analysis, together) if usable else (),
        versions=(
            f"{versions['bundle']} ({versions['bundle_sha256'][:12]}), "
            f"dermedge {versions['dermedge']}, {versions['runtime']}. "
            + _("Rule: {rule}.", rule=rule(analysis, together))
        ),
        demonstration=_(DEMO) if versions["procedural"] else "",
        several=" ".join(filter(None, [_several(together) if together else "", _others(others)])),
    )


def rule(analysis: Mapping, together: Combined | None = None) -> str:
    """What led to the triage."""
    if together is None:
        return _rule(analysis.get("because"), analysis["rule"])
    if together.because is None:
        return _none_of(together)
    return n_(
        "mean of {count} picture: {rule}",
        "mean of {count} pictures: {rule}",
        together.used,
        rule=_rule(together.because.to_json(), str(together.because)),
    )


def _rule(because: Mapping | None, english: str) -> str:
    """In the language, where the analysis has it in such a form: those of before have not."""
    if because is None or because["code"] not in RULES:
        return english
    digits = 2 if because["code"] == "unfamiliar" else 3
    values = {
        name: language.number(value, digits)
        if isinstance(value, (int, float))
        else "; ".join(_(quality.TITLES.get(code, code)).rstrip(".") for code in value)
        for name, value in because["values"].items()
    }
    try:
        return _(RULES[because["code"]], **values)
    except KeyError:  # a value is missing
        return english


def spoken(band: Band) -> Band:
    """A band of BANDS in the current language."""
    return Band(_(band.title), _(band.advice), band.style, band.shape, band.mark)


def _several(together: Combined) -> str:
    if not together.used:
        return language.sentence(_none_of(together))
    if together.used == 1:
        return n_(
            "Only one of {count} picture counts for this estimate.",
            "Only one of {count} pictures counts for this estimate.",
            together.pictures,
        )
    used = language.number(together.used)
    lowest, highest = (percent(risk or 0.0) for risk in (together.lowest, together.highest))
    if lowest == highest:
        message = n_(
            "Mean of {used} of {count} picture; alone they say the same.",
            "Mean of {used} of {count} pictures; alone they say the same.",
            together.pictures,
            used=used,
        )
    else:
        message = n_(
            "Mean of {used} of {count} picture; alone they say {lowest} to {highest}.",
            "Mean of {used} of {count} pictures; alone they say {lowest} to {highest}.",
            together.pictures,
            used=used,
            lowest=lowest,
            highest=highest,
        )
    if not together.agreed:
        message += " " + _("They do not agree: take one more, or show the spot to a doctor.")
    return message


def _others(count: int) -> str:
    if not count:
        return ""
    return n_(
        "{count} picture of another day does not count for this estimate.",
        "{count} pictures of other days do not count for this estimate.",
        count,
    )


def _none_of(together: Combined) -> str:
    return n_(
        "{count} picture cannot be judged",
        "none of {count} pictures can be judged",
        together.pictures,
    )


def remarks(analysis: Mapping) -> tuple[str, ...]:
    """What speaks against the picture, the gravest first."""
    outlined = bool(lesion_outline(analysis))
    found = quality_messages(analysis["quality"]["reasons"], outlined)
    if analysis["triage"] == "retake" and _unfamiliar(analysis):
        found += (OUT_OF_DISTRIBUTION,)
    return tuple(map(_, found))


def _unfamiliar(analysis: Mapping) -> bool:
    return bool((analysis.get("familiarity") or {}).get("unfamiliar"))


def quality_messages(reasons: Iterable[str], outlined: bool) -> tuple[str, ...]:
    """The message of each of the codes, of a picture on which a lesion is `outlined`, or none."""
    messages = quality.titles(outlined)
    return tuple(messages.get(code, code) for code in reasons)


def _measures(analysis: Mapping) -> tuple[tuple[str, str], ...]:
    abcd = analysis["abcd"]
    of = N_("{value} of {most}")
    rows = [
        (title, None if abcd[key] is None else _(of, value=language.number(abcd[key]), most=most))
        for key, title, most in (
            ("asymmetry", _("A  Asymmetry"), 2),
            ("border", _("B  Border"), 8),
            ("color", _("C  Colours"), 6),
        )
    ]
    size = abcd["diameter_mm"]
    rows.append((_("D  Diameter"), None if size is None else millimetres(size)))
    return tuple((title, value or _("size unknown")) for title, value in rows)


def millimetres(value: float) -> str:
    return _("{value} mm", value=language.number(value, 1))


def _limits(analysis: Mapping, together: Combined | None) -> tuple[str, ...]:
    limits = []
    if together is None:
        limits.append(
            _("One picture shows less than an examination: no touch, no history, no second view.")
        )
    if _unfamiliar(analysis):
        limits.append(_(OUT_OF_DISTRIBUTION))
    if analysis["abcd"]["diameter_mm"] is None:
        limits.append(
            _("The size in millimetres is unknown: nothing in the picture gives a scale.")
        )
    # In the language already; its strokes are none of a path.
    names = Message(language.listed(_(CLASSES[name]) for name in analysis["probabilities"]))
    limits.append(_("Only what the model was trained on can come out: {names}.", names=names))
    return tuple(limits)


def percent(value: float) -> str:
    """0..1 in words that do not claim certainty."""
    if value < 0.01:
        return _("below {value}", value=language.percent(0.01))
    if value > 0.99:
        return _("above {value}", value=language.percent(0.99))
    return language.percent(value)


def reference(name: str | None) -> str:
    """One of dermedge.lesion.scale.REFERENCES, or None, in words."""
    if name is None:
        return _("nothing")
    if name in ("card", "ruler"):
        return _("card") if name == "card" else _("ruler")
    return _("coin {name}", name=name.removeprefix("coin-").replace("-", " "))
