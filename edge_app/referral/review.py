"""Before a referral leaves: what it lacks, what to be careful about, and all that it tells.

No Kivy in it; words are in the app's language.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from dermedge import DISCLAIMER, UserError
from dermedge.lesion.features import COLORS
from dermedge.taxonomy import TITLES as CLASSES
from edge_app.i18n import language
from edge_app.i18n.language import N_, _, n_
from edge_app.presentation.body_map import REGIONS
from edge_app.presentation.estimate import OUT_OF_DISTRIBUTION, percent
from edge_app.presentation.skin_type import NAMES as SKIN_TYPES
from edge_app.referral.form import (
    IDENTIFIER,
    IMMERSIONS,
    KINDS,
    PRIORITIES,
    TEXT,
    Dermoscope,
    Findings,
    Referral,
    ReferredPicture,
)
from edge_app.referral.history import GROUPS, ONSETS, QUESTIONS

ADVICE = {
    "low": N_("Low risk"),
    "see a doctor": N_("Raised risk: see a doctor"),
    "urgent": N_("High risk: see a doctor soon"),
    "retake": N_("No estimate: the picture cannot be judged"),
}
MEASURES = {
    "asymmetry": N_("Asymmetry, 0 to 2"),
    "border": N_("Border, 0 to 8"),
    "color": N_("Colours, 1 to 6"),
}
_CHILD = 16  # years: services that take adults begin here
_SHORTEST = 3  # letters of a private word that is looked for: shorter ones are everywhere
_UNSPACED = "[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"  # where words have no gaps
TATWEEL = "\N{ARABIC TATWEEL}"  # draws a word out
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})
# Words of a name that are words of any sentence, too.
_PARTICLES = frozenset(
    ("von", "van", "der", "den", "dem", "des", "vom", "zum", "zur", "und")
    + ("del", "las", "los", "das", "dos")
)
_ARABIC = "[\u0600-\u06ff]"
# Names of colours; they are those of dermedge.lesion.features, and messages of their own here.
_COLORS = dict(
    zip(
        COLORS,
        (N_("white"), N_("red"), N_("light brown"), N_("dark brown"), N_("blue-gray"), N_("black")),
        strict=True,
    )
)


@dataclass(frozen=True)
class Gap:
    """Something that is missing or to be careful about; `text` has `{name}`s that `values` fill."""

    code: str
    text: str
    values: tuple[tuple[str, object], ...] = ()
    required: bool = False  # nothing is sent without it

    def __str__(self) -> str:
        """In the app's language."""
        words = {k: _(v) if isinstance(v, str) else v for k, v in self.values}
        return _(self.text, **words)


class Row(NamedTuple):
    """A line of the preview, in the app's language."""

    label: str
    value: str
    picture: str | None = None  # id of the picture that it is about


# ---------------------------------------------------------------------------- what is missing


def missing(referral: Referral, private: Sequence[str] = ()) -> tuple[Gap, ...]:
    """What a referral lacks, the required first.

    Parameters
    ----------
    private : words that must not leave with a pseudonymous referral, such as the person's name.
    """
    gaps = [*_required(referral, private), *picture_gaps(referral.pictures), *_history(referral)]
    return tuple(sorted(gaps, key=lambda gap: not gap.required))


def require(referral: Referral, private: Sequence[str] = ()) -> None:
    """Raise UserError for the first thing without which nothing may be sent."""
    for gap in _required(referral, private):
        raise UserError(gap.text, code=gap.code, **dict(gap.values))


def cautions(referral: Referral) -> tuple[Gap, ...]:
    """What a receiver may not take, or the model knows less of: to be told before sending."""
    notes = []
    if referral.skin_type in (5, 6):
        words = N_(
            "The model has seen few pictures of dark skin: its estimate is less sure here, and "
            "some services want to see such a person rather than a picture."
        )
        notes.append(Gap("dark-skin", words))
    if referral.lesion.site == "genital area":
        notes.append(Gap("genital", N_("Some services take no pictures of the genital area.")))
    # By the year of birth alone an age may be one too many.
    child = referral.age is not None and referral.age - 1 < _CHILD
    if child or referral.age_group == "0-15":
        notes.append(Gap("child", N_("Some services take nobody under 16 years.")))
    if dict(referral.answers).get("weak_immune"):
        words = N_("Some services want to see a person with a weak immune system themselves.")
        notes.append(Gap("immune", words))
    if any(it.findings is not None and it.findings.demonstration for it in referral.pictures):
        words = N_(
            "The estimate is of a demonstration model, trained on drawn pictures: it means nothing."
        )
        notes.append(Gap("demonstration", words))
    return tuple(notes)


def _required(referral: Referral, private: Sequence[str]) -> Iterator[Gap]:
    if referral.consent is None:
        yield _must("consent", N_("Ask for consent to send."))
    elif not referral.consent.valid:
        yield _must("consent", N_("Ask for consent again: its text is not known here."))
    if not referral.pictures:
        yield _must("picture", N_("Add a picture: nothing can be judged without one."))
    if referral.lesion.site not in REGIONS:
        yield _must("site", N_("Mark on the body map where the spot is."))
    for identifier in referral.identifiers:
        if not _sendable(identifier.value) or len(identifier.value) > IDENTIFIER:
            yield _must("identifier", N_("Type or scan the identifier again: it cannot be sent."))
        if not re.fullmatch(r"(urn:(oid|uuid):[0-9a-fA-F.-]+|https?://[!-~]+)", identifier.system):
            words = N_("The identifier's system must be a URI, as urn:oid:... or https://...")
            yield _must("identifier-system", words)
    if len(referral.question) > TEXT:
        yield _must(
            "question-long",
            N_("Shorten the question: the most characters are {limit}."),
            limit=TEXT,
        )
    plain = re.sub(r"\r?\n|\t", "", referral.question)
    if language.printable(plain) != plain:  # a space that breaks no line is no fault
        words = N_("Type the question again: it holds characters that cannot be sent.")
        yield _must("question-characters", words)
    if referral.report and not referral.report.startswith(b"%PDF-"):
        yield _must("report", N_("Make the report again: it is not a PDF."))
    if referral.pseudonymous and _names_private(referral, private):
        yield _must("private", N_("Take the person's name or notes out of the question."))


def picture_gaps(pictures: Sequence[ReferredPicture]) -> Iterator[Gap]:
    """What a set of pictures lacks; their pixels are not looked at."""
    kinds = [picture.kind for picture in pictures]
    for kind, title in KINDS.items():
        if kind not in kinds:
            yield Gap(f"no-{kind.replace('_', '-')}", N_("Missing: {kind}"), (("kind", title),))
    for number, picture in enumerate(pictures, 1):
        at = (("number", number),)
        if picture.kind == "close_up" and picture.px_per_mm is None:
            words = N_("Picture {number}: nothing gives a scale. Lay a ruler or the card beside.")
            yield Gap("no-scale", words, at)
        scope = picture.dermoscope
        if picture.kind == "dermoscopic" and (scope is None or scope.contact is None):
            words = N_("Picture {number}: say how the dermoscope was held, and its light.")
            yield Gap("no-dermoscope", words, at)
        if picture.recognizable is None:
            words = N_("Picture {number}: say whether a face, tattoo or jewellery can be seen.")
            yield Gap("no-recognizable", words, at)
        if picture.taken is None:
            yield Gap("no-date", N_("Picture {number}: when it was taken is not known."), at)
        if picture.findings is not None and not picture.findings.judged:
            yield Gap("retake", N_("Picture {number}: take it again, it cannot be judged."), at)


def _history(referral: Referral) -> Iterator[Gap]:
    open_questions = len(QUESTIONS) - len(referral.answers)
    if referral.onset is None:
        yield Gap("no-onset", N_("Missing: since when the spot is there."))
    if open_questions:
        words = N_("Questions of the history that are open: {open}")
        yield Gap("history", words, (("open", open_questions),))
    for code, value, words in (
        ("no-question", referral.question.strip(), N_("Missing: what is asked.")),
        ("no-sex", referral.sex, N_("Missing: sex.")),
        ("no-age", referral.birth_year or referral.age_group, N_("Missing: age.")),
        ("no-skin-type", referral.skin_type, N_("Missing: skin type.")),
    ):
        if not value:
            yield Gap(code, words)


def _must(code: str, text: str, **values: object) -> Gap:
    return Gap(f"referral-{code}", text, tuple(values.items()), required=True)


def _sendable(value: str) -> bool:
    """As an identifier: something, on one line, without what DICOM takes for a separator."""
    return bool(value) and value == value.strip() and value.isprintable() and "\\" not in value


def _names_private(referral: Referral, private: Sequence[str]) -> bool:
    """Whether the question holds a private word, as it stands in a sentence of its language."""
    question = _folded(referral.question)
    parts = {part for word in private for part in _parts(word)}
    return any(pattern and re.search(pattern, question) for pattern in map(_within, parts))


def _parts(name: str) -> Iterator[str]:
    """A name and its words, also those of a double name or before a comma; umlauts as ae, too."""
    bare = "".join(" " if unicodedata.category(c)[0] in "PS" else c for c in name)
    for text in (name, bare):
        for number, word in enumerate(text.split()):
            if word.casefold() not in _PARTICLES or not (number or word.islower()):
                yield word
                yield unicodedata.normalize("NFC", word.casefold()).translate(_UMLAUTS)
    yield name


def _within(word: str) -> str:
    """A pattern that finds a name in a folded sentence; empty for one that is too short."""
    word = _folded(word)
    name = re.escape(word)
    if re.match(_UNSPACED, word):
        return name if len(word) >= _SHORTEST - 1 else ""
    if len(word) < _SHORTEST:
        return ""
    if re.match(_ARABIC, word):  # "and", "to", "with" and the article are written onto it
        return rf"(?<!\w)[وف]?[بلك]?(?:ال)?{name}(?!\w)"
    return rf"(?<!\w){name}s?(?!\w)"  # "Marias Fleck"


def _folded(text: str) -> str:
    """Without case, accents, vowel marks and what is not seen: people may leave them out."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(c for c in apart if unicodedata.category(c) not in ("Mn", "Cf") and c != TATWEEL)
    return " ".join(unicodedata.normalize("NFC", bare).split())


# ---------------------------------------------------------------------------- what leaves


def preview(referral: Referral, risk_factors: Sequence[str] = ()) -> tuple[Row, ...]:
    """Every field and picture that leaves, as rows for a person to read.

    `risk_factors` : those that the report's page names.
    """
    rows = [*_person(referral), *_asked(referral)]
    for number, picture in enumerate(referral.pictures, 1):
        rows += _picture(number, picture)
    if referral.report:
        size = language.number(len(referral.report) / 1000)
        rows.append(Row(_("Report"), _("a PDF of {size} kB", size=size)))
    if referral.report and risk_factors:
        risks = language.listed(map(_, risk_factors))
        line = _("{group}: {question}", group=_("Risk factors"), question=risks)
        rows.append(Row(_("Report"), line))
    rows += [Row(_("Note"), str(note)) for note in cautions(referral)]
    return (*rows, Row(_("Note"), _(DISCLAIMER)))


def _person(referral: Referral) -> Iterator[Row]:
    if referral.pseudonymous:
        yield Row(_("Person"), _("without a name, as code {code}", code=referral.pseudonym))
    for identifier in referral.identifiers:
        words = _("{value} (of {system})", value=identifier.value, system=identifier.system)
        yield Row(_("Identifier of the receiver"), words)
    if referral.identifiers and referral.birth_year is not None:
        yield Row(_("Year of birth"), str(referral.birth_year))
    if referral.age is not None:
        yield Row(_("Age"), n_("about {count} year old", "about {count} years old", referral.age))
    if referral.age_group is not None:
        yield Row(_("Age in years"), referral.age_group)
    if referral.sex:
        yield Row(_("Sex"), _(referral.sex))
    if referral.skin_type:
        yield Row(_("Skin type"), SKIN_TYPES[referral.skin_type - 1])
    consent = referral.consent
    if consent is not None:
        words = _(
            "{when}, text {version} ({language})",
            when=_moment(consent.given),
            version=language.isolated(consent.version),
            language=consent.language,
        )
        yield Row(_("Consent to send"), words)


def _asked(referral: Referral) -> Iterator[Row]:
    yield Row(_("Referral"), f"{referral.id}, {_moment(referral.created)}")
    yield Row(_("Place on the body"), _(referral.lesion.site))
    yield Row(_("Code of the spot, the same in each referral there"), referral.lesion.tracking_uid)
    if referral.onset:
        yield Row(_("There since"), _(ONSETS[referral.onset]))
    for key, yes in referral.answers:
        question = QUESTIONS[key]
        label = _(
            "{group}: {question}", group=_(GROUPS[question.group]), question=_(question.words)
        )
        yield Row(label, _("Yes") if yes else _("No"))
    yield Row(_("Priority"), _(PRIORITIES[referral.priority]))
    if referral.question.strip():
        yield Row(_("Question"), referral.question)


def _picture(number: int, picture: ReferredPicture) -> Iterator[Row]:
    height, width = picture.pixels().shape[:2]
    parts = [_(KINDS[picture.kind]), language.isolated(f"{width} x {height} px")]
    if picture.px_per_mm is not None:
        scale = language.number(picture.px_per_mm, 2)
        parts.append(_("{scale} px for a millimetre", scale=scale))
    if picture.taken is not None:
        parts.append(_moment(picture.taken))
    if picture.dermoscope is not None:
        parts += _dermoscope(picture.dermoscope)
    parts.append(
        _("a face, tattoo or jewellery may be recognized")
        if picture.recognizable is not False
        else _("nothing by which to recognize the person")
    )
    yield Row(_("Picture {number}", number=number), language.listed(parts), picture.id)
    if picture.findings is not None:
        for label, value in _findings(picture.findings):
            yield Row(_("Picture {number}: {label}", number=number, label=label), value, picture.id)


def _dermoscope(scope: Dermoscope) -> Iterator[str]:
    if scope.contact is not None:
        yield _("in contact") if scope.contact else _("without contact")
    if scope.polarized is not None:
        yield _("polarized light") if scope.polarized else _("unpolarized light")
    if scope.immersion is not None:
        yield _(IMMERSIONS[scope.immersion])


def _findings(found: Findings) -> Iterator[tuple[str, str]]:
    yield _("Estimate of the model"), _(ADVICE[found.triage])
    if found.outlines:
        count = sum(len(outline) for outline in found.outlines)
        yield _("Outline"), n_("{count} point", "{count} points", count)
    if found.judged:
        yield _("Estimated risk"), percent(found.malignancy)
        for name, value in found.probabilities:
            yield _(CLASSES[name]), percent(value)
        for name, title in MEASURES.items():
            value = getattr(found, name)
            if value is not None:
                yield _(title), language.number(value)
        if found.colors:
            yield _("Colours seen"), language.listed(_(_COLORS.get(it, it)) for it in found.colors)
        if found.diameter_mm is not None:
            yield _("Diameter"), _("{value} mm", value=language.number(found.diameter_mm, 1))
        if found.area_px:
            yield _("Area"), f"{language.number(found.area_px)} px"
    if found.remarks:
        yield _("Picture quality"), " ".join(map(_, found.remarks))
    if found.unfamiliar:
        yield _("Note"), _(OUT_OF_DISTRIBUTION)
    yield _("Rule"), found.rule
    model = f"{found.bundle} ({found.bundle_sha256[:12]}), dermedge {found.software}"
    yield _("Model"), model


def _moment(when: datetime) -> str:
    return language.isolated(when.strftime("%Y-%m-%d %H:%M %z"))
