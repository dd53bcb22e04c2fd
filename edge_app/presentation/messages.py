"""What the screens say, as plain values: an analysis in, words, styles and shapes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from dermedge.bundle.bundle import Manifest
from dermedge.combine import Combined
from dermedge.lesion.quality import TITLES as QUALITY
from dermedge.taxonomy import TITLES as CLASSES
from dermedge.triage import RULES
from edge_app.capture.shots import Snapshot
from edge_app.follow_up import people
from edge_app.follow_up.people import Known, Spot
from edge_app.i18n import language
from edge_app.i18n.language import N_, _, n_
from edge_app.presentation import skin_type
from edge_app.self_check import TITLES as CHECKS
from edge_app.self_check import Check
from edge_app.store.records import OTHER_VERSION
from edge_app.store.store import Lesion, Person

Outline = list[list[list[float]]]  # closed polygons of [x, y], px of the whole picture

UNSURE = N_("The outline of the spot is unsure: put the spot in the middle of the picture.")
DEMO = N_(
    "Demonstration model: trained on drawn pictures, not on skin. Its estimates mean nothing."
)


SEPARATOR = "  ·  "  # between facts on one line


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
            "bleeds, show it to a doctor whatever this screen says."
        ),
        "low",
        "circle",
        "✓",
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
        "is sent anywhere unless you export it yourself."
    ),
)
TERMS_KIOSK = N_(
    "A picture is kept only if the operator of this device keeps it for you. When nobody touches "
    "the screen for a while, everything on it is cleared."
)


@dataclass(frozen=True)
class LiveView:
    """The live screen's words."""

    guidance: str = ""
    style: str = "guide_wait"
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
    several: str = ""  # what several pictures of the lesion say beside their mean


def terms(kiosk: bool) -> list[str]:
    """What a person agrees to before the first picture."""
    return [_(text) for text in (*TERMS, *([TERMS_KIOSK] if kiosk else []))]


def demonstration(manifest: Manifest) -> str:
    """What to say of a bundle that was trained on drawn pictures; empty for others."""
    return _(DEMO) if manifest.procedural else ""


def error_line(error: BaseException) -> str:
    """An error as one line for the screen."""
    return language.sentence(_(language.error_message(error)))


def faults(checks: Sequence[Check], snapshot: Snapshot) -> str:
    """What the self-check found wrong, for the operator; empty where all is well.

    A camera that came later is no fault any more.
    """
    seen = not snapshot.fault  # nor waited for, then
    lines = [
        _("{part}: {words}", part=_(CHECKS[check.name]), words=language.sentence(_(check.message)))
        for check in checks
        if not check.ok and not (check.name == "camera" and seen)
    ]
    return "\n".join([_("For the operator of this device"), *lines]) if lines else ""


def reminder(lesion: Lesion, person: Person) -> str:
    when = language.day(lesion.remind) if lesion.remind else ""
    return f"{person.name}: {lesion.title} ({when})"


def kept(person: Person | None, lesion: Lesion) -> str:
    """That the series is on disk, and where."""
    if person is None:
        return _("Kept: {spot}", spot=lesion.title)
    return _("Kept: {person}, {spot}", person=person.name, spot=lesion.title)


def estimated(triage: str | None) -> Band:
    """The band of a triage result, in the language; of None, too: there is no picture; and of
    OTHER_VERSION: it cannot be read here."""
    if triage is None:
        return Band(_("No picture yet"), "", "plain", "circle", "")
    if triage == OTHER_VERSION:
        return Band(_("Result of another version of dermedge"), "", "retake", "square", "?")
    return spoken(BANDS[triage])


def facts(person: Person, today: date) -> str:
    """Age, sex and skin type, as far as they are known, on one line."""
    known = []
    if (age := people.age(person, today)) is not None:
        known.append(n_("about {count} year old", "about {count} years old", age))
    if person.sex:
        known.append(_(person.sex))
    if person.skin_type:
        known.append(_("skin type {name}", name=skin_type.NAMES[person.skin_type - 1]))
    return language.capital(SEPARATOR.join(known))


def row(known: Known, today: date) -> str:
    """A person's line in the list: age and number of spots."""
    parts = [n_("{count} spot", "{count} spots", known.spots)]
    if (age := people.age(known.person, today)) is not None:
        parts.insert(0, n_("about {count} year old", "about {count} years old", age))
    return language.capital(SEPARATOR.join(parts))


def spot(spot: Spot) -> str:
    """A spot's line in the list: how many pictures, the newest."""
    if not spot.pictures:
        return ""
    pictures = n_("{count} picture", "{count} pictures", spot.pictures)
    day = language.day(spot.taken) if spot.dated else _("date not known")
    return SEPARATOR.join((pictures, day))


def live(snapshot: Snapshot, notice: str = "") -> LiveView:
    """What the live screen shows for a snapshot; `notice` (a failed capture) goes before all."""
    analysis = snapshot.analysis if snapshot.frame is not None else None
    outline = analysis["lesion"]["polygons"] if analysis else []
    if snapshot.busy:
        text, style = _("Saving and analysing. You may move the camera away."), "guide_good"
    elif bad := notice or snapshot.fault or snapshot.failure:
        text, style = language.sentence(_(bad)), "guide_bad"
    elif analysis is None:
        text, style = _("Looking at the picture."), "guide_wait"
    elif not analysis["quality"]["ok"]:
        # One thing at a time: the reasons come gravest first.
        text, style = _remarks(analysis)[0], "guide_wait"
    else:
        text, style = _("Good picture. Hold still and press the button."), "guide_good"
    return LiveView(
        guidance=text,
        style=style,
        outline=outline,
        extent=tuple(analysis["size"]) if analysis else (1, 1),
        can_capture=snapshot.frame is not None and not snapshot.busy,
        source=_(snapshot.source) or _("no source"),
    )


def result(analysis: Mapping, together: Combined | None = None) -> ResultView:
    """What the result screen shows.

    Parameters
    ----------
    analysis : of the picture that is shown, as `analysis.schema.json` describes it.
    together : what all pictures of the lesion say, where there are several; the risk is theirs.
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
        outline=analysis["lesion"]["polygons"],
        extent=tuple(analysis["size"]),
        remarks=_remarks(analysis),
        # Numbers from a picture that cannot be judged would only look like knowledge.
        classes=tuple((_(CLASSES[n]), percent(v)) for n, v in likely) if usable else (),
        measures=_measures(analysis) if usable else (),
        limits=_limits(analysis, together) if usable else (),
        versions=(
            f"{versions['bundle']} ({versions['bundle_sha256'][:12]}), "
            f"dermedge {versions['dermedge']}, {versions['runtime']}. "
            + _("Rule: {rule}.", rule=rule(analysis, together))
        ),
        demonstration=_(DEMO) if versions["procedural"] else "",
        several=_several(together) if together else "",
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
        else "; ".join(_(QUALITY.get(code, code)).rstrip(".") for code in value)
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
    message = n_(
        "Mean of {used} of {count} picture; alone they say {lowest} to {highest}.",
        "Mean of {used} of {count} pictures; alone they say {lowest} to {highest}.",
        together.pictures,
        used=language.number(together.used),
        lowest=percent(together.lowest or 0.0),
        highest=percent(together.highest or 0.0),
    )
    if not together.agreed:
        message += " " + _("They do not agree: take one more, or show the spot to a doctor.")
    return message


def _none_of(together: Combined) -> str:
    return n_(
        "{count} picture cannot be judged",
        "none of {count} pictures can be judged",
        together.pictures,
    )


def _remarks(analysis: Mapping) -> tuple[str, ...]:
    # The quality check asks how sure the outline is: where there is one, "no lesion" would
    # contradict it.
    messages = {**QUALITY, "no_lesion": UNSURE} if analysis["lesion"]["found"] else QUALITY
    return tuple(_(messages[code]) for code in analysis["quality"]["reasons"])


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
    if (analysis.get("familiarity") or {}).get("unfamiliar"):
        limits.append(_("This picture is unlike those that the model learnt from."))
    if analysis["abcd"]["diameter_mm"] is None:
        limits.append(
            _("The size in millimetres is unknown: nothing in the picture gives a scale.")
        )
    names = ", ".join(_(CLASSES[name]) for name in analysis["probabilities"])
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
