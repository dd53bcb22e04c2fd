"""A referral as a value: what it refuses, what it misses, and that its preview hides nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from analyses import analysis
from referrals import PDF, WHEN, drawn, findings, picture, referral

from dermedge import UserError
from edge_app.i18n import language
from edge_app.presentation.body_map import REGIONS
from edge_app.referral import consent, fhir, review
from edge_app.referral.consent import Consent
from edge_app.referral.form import (
    Dermoscope,
    Findings,
    Identifier,
    ReferredLesion,
)
from edge_app.referral.history import FROM_RISK_FACTORS, QUESTIONS
from edge_app.referral.uids import pseudonym, tracking_uid
from edge_app.store.records import RISK_FACTORS


def codes(gaps) -> set[str]:
    return {gap.code for gap in gaps}


def test_a_full_referral_misses_nothing_that_is_required():
    full = referral()
    assert review.missing(full) == ()
    review.require(full)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"consent": None}, "referral-consent"),
        ({"consent": Consent("2026-11", "en", WHEN, "0" * 64)}, "referral-consent"),
        ({"consent": Consent("1999", "en", WHEN, "0" * 64)}, "referral-consent"),
        ({"pictures": ()}, "referral-picture"),
        ({"lesion": ReferredLesion("beside", tracking_uid("x"))}, "referral-site"),
        ({"identifiers": (Identifier("urn:oid:1.2", " "),)}, "referral-identifier"),
        ({"identifiers": (Identifier("urn:oid:1.2", "a\\b"),)}, "referral-identifier"),
        ({"identifiers": (Identifier("urn:oid:1.2", "a\nb"),)}, "referral-identifier"),
        ({"identifiers": (Identifier("urn:oid:1.2", "x" * 65),)}, "referral-identifier"),
        ({"identifiers": (Identifier("our ward", "7"),)}, "referral-identifier-system"),
        ({"identifiers": (Identifier("urn:oid:1.2", "7 "),)}, "referral-identifier"),
        ({"question": "x" * 4001}, "referral-question-long"),
        ({"question": "Is it\x00 bad?"}, "referral-question-characters"),
        ({"question": "Is it\x0b bad?"}, "referral-question-characters"),
        ({"question": "Is it\ud800 bad?"}, "referral-question-characters"),
        ({"report": b"<html>"}, "referral-report"),
        ({"question": "Is mrs. ZIMMERMANN's spot bad?"}, "referral-private"),
    ],
)
def test_what_must_be_there_is_refused_in_one_line(changes, code):
    asked = referral(**changes)
    private = ("Anna Zimmermann",)
    assert code in codes(gap for gap in review.missing(asked, private) if gap.required)
    with pytest.raises(UserError) as refused:
        review.require(asked, private)
    assert refused.value.code == code
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "question", ["5\u00a0mm\u202f?", "هل\u200f هي 5 mm؟", "\u200dok", "👩\u200d⚕"]
)
def test_what_keyboards_put_into_a_sentence_is_sent(question):
    review.require(referral(question=question))


@pytest.mark.parametrize(
    ("name", "question", "refused"),
    [
        ("José Pérez", "Is Jose\u0301 well?", True),
        ("José Pérez", "Is Jose well?", True),
        ("Maria Huber", "Ist Marias Fleck gutartig?", True),
        ("محمد علي", "هل بقعة مُحمّد حميدة؟", True),
        ("محمد علي", "البقعة لمحمد", True),
        ("محمد علي", "هل محـمد بخير؟", True),
        ("Mira", "Is Mi\u200dra\u00a0well?", True),
        ("王伟", "王伟的痣是良性的吗?", True),
        ("Zimmermann, Anna", "Is Zimmermann's spot bad?", True),
        ("Eva Müller-Lüdenscheidt", "Frau Müller hat Angst", True),
        ("Eva Müller-Lüdenscheidt", "Frau Luedenscheidt hat Angst", True),
        ("Anna (Anni) O'Brien", "Anni asks", True),
        ("Anna (Anni) O'Brien", "Mrs O’Brien asks", True),
        ("Hans von Berg", "Ein Fleck von 5 mm", False),
        ("Hans von Berg", "Was hat Berg?", True),
        ("Ana de los Ríos", "¿Los bordes?", False),
        ("Del Shannon", "Is Del well?", True),
        ("Isa Ito", "Is it benign?", False),
        ("Mo Le", "Is this mole benign?", False),
        ("عليا", "علي البقعة", False),
    ],
)
def test_a_name_is_found_as_it_is_written_in_a_sentence(name, question, refused):
    asked = referral(question=question)
    assert ("referral-private" in codes(review.missing(asked, (name,)))) == refused


def test_what_is_outlined_on_a_picture_without_a_lesion_does_not_leave():
    outlier = {"score": 2.5, "limit": 1.5, "refused": True}
    assert Findings.of(analysis()).outlines
    found = Findings.of(analysis(triage="retake", outlier=outlier))
    assert (found.outlines, found.area_px, found.judged) == ((), 0.0, False)


def test_what_speaks_against_a_picture_is_told_to_the_receiver_in_words():
    quality = {"ok": False, "usable": False, "reasons": ["no_lesion", "hair"], "scores": {}}
    outlined = Findings.of(analysis(triage="retake", quality=quality))
    assert outlined.remarks[0].startswith("The outline of the spot is unsure")
    lesion = {"found": False, "box": None, "polygons": [], "area_px": 0.0, "centroid": None}
    found = Findings.of(analysis(triage="retake", quality=quality, lesion=lesion))
    words = "No lesion was found: put the spot in the middle of the picture. Hair lies over"
    shown = picture(findings=found)
    asked = referral(pictures=(shown,))
    assert any(row.value.startswith(words) for row in review.preview(asked))
    assert words in fhir.transaction(asked)[1].decode()


def test_a_word_that_only_contains_the_name_is_no_name():
    asked = referral(question="It may be annular, and it is on the arm.")
    review.require(asked, ("Ann Ar",))


def test_the_name_may_be_asked_about_where_the_receiver_knows_the_person():
    identified = referral(identifiers=(Identifier("urn:oid:1.2", "7"),), question="Anna asks.")
    review.require(identified, ("Anna",))


def test_gaps_of_the_picture_set_and_the_history_are_told():
    bare = referral(
        pictures=(
            picture("close_up", px_per_mm=None, recognizable=None, taken=None),
            picture("dermoscopic", 2, dermoscope=None, findings=findings(triage="retake")),
        ),
        answers=(),
        onset=None,
        question=" ",
        sex=None,
        birth_year=None,
        skin_type=None,
    )
    gaps = review.missing(bare)
    assert codes(gaps) == {
        "no-overview", "no-scale", "no-recognizable", "no-date", "no-dermoscope", "retake",
        "no-onset", "history", "no-question", "no-sex", "no-age", "no-skin-type",
    }  # fmt: skip
    assert not any(gap.required for gap in gaps)
    assert all(str(gap) and "{" not in str(gap) for gap in gaps)


def test_cautions_name_what_services_refuse_and_models_know_less():
    dark = referral(
        skin_type=6,
        birth_year=2015,
        lesion=ReferredLesion("genital area", tracking_uid("x")),
        answers=(("weak_immune", True),),
    )
    assert codes(review.cautions(dark)) == {
        "dark-skin", "genital", "child", "immune", "demonstration",
    }  # fmt: skip
    plain = referral(pictures=(picture(findings=None),), answers=(("weak_immune", False),))
    assert review.cautions(plain) == ()
    for years, noted in ((16, {"child"}), (17, set())):  # who turns 16 this year may be 15
        young = replace(plain, birth_year=plain.created.year - years)
        assert codes(review.cautions(young)) == noted


SHOWN = "a297951d1fa4367ea9f8a9db337b96557d0bbdd61e6f231ea68cd5ac68fa0a7a"
CHANGES = [
    {"id": "00000000-0000-0000-0000-0000000000ff"},
    {"created": WHEN + timedelta(minutes=1)},
    {"pseudonym": pseudonym("another", "clinic")},
    {"lesion": ReferredLesion("left palm", referral().lesion.tracking_uid)},
    {"lesion": replace(referral().lesion, tracking_uid=tracking_uid("another"))},
    {"consent": Consent.to("2026-11", "de", WHEN - timedelta(minutes=1))},
    {"consent": Consent.to("2026-11", "en", WHEN)},
    {"identifiers": (Identifier("urn:oid:1.2", "7"),)},
    {"identifiers": (Identifier("urn:oid:1.2", "7"), Identifier("urn:oid:1.2", "8"))},
    {"identifiers": (Identifier("urn:oid:1.3", "7"),), "birth_year": 1970},
    {"birth_year": 1950},
    {"birth_year": None, "age_group": "50-59"},
    {"sex": "male"},
    {"skin_type": 5},
    {"onset": "birth"},
    {"answers": referral().answers[:-1]},
    {"answers": (("changed", False), *referral().answers[1:])},
    {"priority": "asap"},
    {"question": "Another?"},
    {"report": PDF + b" " * 2000},
    {"report": b""},
    {"pictures": referral().pictures[:2]},
]
PICTURE_CHANGES = [
    {"kind": "close_up", "dermoscope": None},
    {"image": drawn(3, (100, 128))},
    {"px_per_mm": 9.0},
    {"px_per_mm": None},
    {"taken": None},
    {"taken": WHEN - timedelta(days=1)},
    {"recognizable": True},
    {"dermoscope": Dermoscope(False, True)},
    {"dermoscope": Dermoscope(True, False, "WATER")},
    {"dermoscope": Dermoscope(True, True, "ALCOHOL")},
    {"findings": None},
    *(
        {"findings": findings(**change)}
        for change in (
            {"outlines": ()},
            {"triage": "low"},
            {"rule": "another"},
            {"malignancy": 0.8},
            {"probabilities": (("nv", 0.5), ("mel", 0.5))},
            {"area_px": 3.0},
            {"asymmetry": 2},
            {"border": None},
            {"color": 5},
            {"colors": ("red",)},
            {"diameter_mm": 9.0},
            {"reasons": ()},
            {"unfamiliar": True},
            {"demonstration": False},
            {"bundle": "other"},
            {"bundle_sha256": "cd" * 32},
            {"software": "0.3.0"},
        )
    ),
]


@pytest.mark.parametrize("tongue", ["en", "de"])
def test_every_field_shows_in_the_preview(tongue):
    language.use(tongue)
    try:
        before = review.preview(referral())
        for change in CHANGES:
            assert review.preview(referral(**change)) != before, change
        first, second, third = referral().pictures
        for change in PICTURE_CHANGES:
            # What is the same for the whole referral stands in its notes.
            changed = (first, replace(second, findings=None), replace(third, **change))
            same = (first, replace(second, findings=None), third)
            rows = review.preview(referral(pictures=changed))
            assert rows != review.preview(referral(pictures=same)), change
        pictured = [row.picture for row in before if row.picture]
        assert set(pictured) == {it.id for it in referral().pictures}
        assert all(row.label and row.value for row in before)
    finally:
        language.use("en")


def test_the_preview_claims_no_certainty_that_the_screens_and_the_report_do_not():
    sure = findings(malignancy=0.004, probabilities=(("nv", 0.996), ("mel", 0.004)))
    rows = review.preview(referral(pictures=(picture(findings=sure),)))
    said = {row.label: row.value for row in rows}
    assert said["Picture 1: Estimated risk"] == "below 1%"
    assert said["Picture 1: melanoma"] == "below 1%"
    assert said["Picture 1: melanocytic nevus"] == "above 99%"


@pytest.mark.skipif("ar" not in language.offered(), reason="needs the extra app")
def test_the_preview_in_arabic_keeps_sizes_times_and_versions_together():
    sent = referral()
    assert sent.consent is not None
    height, width = sent.pictures[0].pixels().shape[:2]
    language.use("ar")
    try:
        rows = review.preview(sent)
        drawn = [language.visual(row.value) for row in rows]
    finally:
        language.use("en")
    assert not [row.value for row in rows if row.picture and ", " in row.value.split("(")[0]]
    for words in (
        f"{width} x {height} px",
        sent.consent.version,
        f"{sent.created:%Y-%m-%d %H:%M %z}",
    ):
        assert any(words in line for line in drawn), words


def test_findings_are_taken_from_what_the_store_keeps():
    found = Findings.of(analysis(triage="urgent", malignancy=0.9))
    assert found.triage == "urgent"
    assert found.probabilities == (("nv", 0.875), ("mel", 0.125))
    assert found.outlines[0][0] == (160.0, 120.0)
    assert found.demonstration
    assert found.judged


@pytest.mark.parametrize(
    "broken",
    [
        {},
        analysis(triage="unheard of"),
        analysis(probabilities={"unheard of": 1.0}),
        analysis(lesion={"polygons": [[1, 2]], "area_px": 3}),
        analysis(malignancy="much"),
    ],
)
def test_findings_of_something_else_are_refused(broken):
    with pytest.raises(UserError) as refused:
        Findings.of(broken)
    assert refused.value.code == "referral-analysis"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "7"},
        {"created": datetime(2026, 1, 1)},
        {"priority": "now"},
        {"sex": "f"},
        {"skin_type": 7},
        {"onset": "once"},
        {"answers": (("no such", True),)},
        {"answers": (("itching", True), ("itching", False))},
        {"age_group": "50-59"},
        {"pseudonym": "Anna Zimmermann"},
        {"pictures": (picture(), picture())},
    ],
)
def test_another_form_is_no_referral(changes):
    with pytest.raises(ValueError, match=r"another form|badly formed"):
        referral(**changes)


def test_consent_is_to_a_text_that_was_shown():
    for version, texts in consent.TEXTS.items():
        assert {"en", "de", "es", "ar"} <= set(texts)
        for tongue in texts:
            assert Consent.to(version, tongue, WHEN).valid
            assert len(texts[tongue].splitlines()) == 5
    assert consent.CURRENT in consent.TEXTS
    # A text that was shown once never changes.
    assert Consent.to("2026-11", "en", WHEN).sha256 == SHOWN
    with pytest.raises(UserError):
        Consent.to("2026-11", "xx", WHEN)


def test_pseudonyms_differ_by_receiver_and_tell_nothing():
    one, other = pseudonym("p1", "north"), pseudonym("p1", "south")
    assert one != other
    assert one == pseudonym("p1", "north")
    assert len(one) == 12
    assert "P1" not in one


def test_risk_factors_answer_questions():
    assert set(FROM_RISK_FACTORS) < set(RISK_FACTORS)
    assert set(FROM_RISK_FACTORS.values()) < set(QUESTIONS)
    assert len(REGIONS) == len(set(REGIONS))


def test_the_page_for_receivers_names_every_code():
    pytest.importorskip("pydicom", reason="codes are read from its tables")
    from edge_app.referral import codes as tables
    from edge_app.referral.uids import CODES

    page = (Path(__file__).resolve().parents[2] / "docs" / "referral.md").read_text("utf-8")
    named = [*map(tables.site, REGIONS), *map(tables.question, QUESTIONS)]
    assert [it for it in named if f"{it.scheme_designator} {it.value} |" not in page] == []
    assert [it for it in tables.PRIVATE.values() if it.value not in page] == []
    assert f"`{CODES}`" in page
