"""People and their spots: the body map, the skin type, the form, the list; without a window."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from analyses import analysis
from hypothesis import assume, given
from hypothesis import strategies as st

from dermedge import metadata
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data import synthetic as procedural
from edge_app.capture.shots import Result
from edge_app.capture.sources import Frame
from edge_app.capture.worker import Worker
from edge_app.follow_up import people
from edge_app.follow_up.history import history
from edge_app.follow_up.people import Draft
from edge_app.presentation import body_map, skin_type
from edge_app.presentation import messages as present
from edge_app.session import Session
from edge_app.store import clock, derivation, schema, validation
from edge_app.store.keys import Keys
from edge_app.store.store import VIEWS, Capture, Lesion, Person, Store, StoreError

TODAY = date(2026, 3, 1)
GRAY, WHITE = (0.5,) * 4, (1.0,) * 4
views = st.sampled_from(VIEWS)
share = st.floats(0, 1)
sheets = st.lists(st.integers(0, 4), min_size=10, max_size=10)


# ---------------------------------------------------------------------------- the body map


@pytest.fixture(scope="module", autouse=True)
def _drawn_once():
    """Hypothesis takes the first drawing for a slow test."""
    body_map.prepare()


def _drawn(view: str) -> np.ndarray:
    """Coverage by the figure as it is drawn, 0..255."""
    return body_map.paint(view, (900, 1800), (GRAY, WHITE))[..., 3]


@given(views, share, share)
def test_where_the_figure_is_drawn_each_place_has_a_region_and_elsewhere_none(view, x, y):
    figure = _drawn(view)
    column, row = min(int(x * 900), 899), min(int(y * 1800), 1799)
    near = figure[max(row - 4, 0) : row + 5, max(column - 4, 0) : column + 5]
    assume(near.min() == near.max())  # not on its very edge
    assert (body_map.region(view, x, y) is not None) == (near.min() == 255)


@given(views, st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_places_off_the_map_have_no_region(view, x, y):
    assume(not (0 <= x <= 1 and 0 <= y <= 1))
    assert body_map.region(view, x, y) is None


@given(views, share, share)
def test_the_two_halves_mirror_each_other(view, x, y):
    columns = body_map.ROWS // 2
    assume(abs(x * columns - round(x * columns)) > 1e-6)  # a border belongs to one cell
    here, there = body_map.region(view, x, y), body_map.region(view, 1 - x, y)
    assert (here is None) == (there is None)
    if here is not None:
        assert there == _other_side(here)


@given(share, share)
def test_left_stays_left_when_the_person_turns_around(x, y):
    front, back = body_map.region("front", x, y), body_map.region("back", 1 - x, y)
    if front and back and _side(front) and _side(back):
        assert _side(front) == _side(back)


def _side(region: str) -> str:
    return next((side for side in ("left", "right") if side in region.split()), "")


def _other_side(region: str) -> str:
    swap = {"left": "right", "right": "left"}
    return " ".join(swap.get(word, word) for word in region.split())


@pytest.mark.parametrize(
    ("place", "region"),
    [
        # The person's left is on the right of the picture, as long as they face us.
        (("front", 0.79, 0.42), "left forearm, front"),
        (("back", 0.79, 0.42), "right forearm, back"),
        (("front", 0.40, 0.60), "right thigh, front"),
        (("back", 0.40, 0.78), "left calf"),
        (("front", 0.50, 0.105), "nose"),
        (("front", 0.86, 0.55), "left palm"),
        (("back", 0.62, 0.25), "right upper back"),
        (("back", 0.63, 0.95), "right sole"),
        (("front", 0.02, 0.02), None),
    ],
)
def test_regions_are_where_a_doctor_looks_for_them(place, region):
    assert body_map.region(*place) == region


def test_every_region_is_on_the_map_and_known_to_the_classifier():
    found = {
        body_map.region(view, x, y)
        for view in VIEWS
        for x in np.linspace(0, 1, 201)
        for y in np.linspace(0, 1, 401)
    }
    assert found - {None} == set(body_map.REGIONS)
    assert all(metadata.region(region) for region in body_map.REGIONS)
    assert metadata.region(body_map.region("front", 0.86, 0.55)) == "palms/soles"


@given(views, share, share)
def test_a_place_beside_the_figure_is_brought_onto_it(view, x, y):
    nearest = body_map.nearest(view, x, y)
    assert body_map.region(view, *nearest) is not None
    if body_map.region(view, x, y) is not None:
        assert nearest == (x, y)


def test_a_close_view_shows_that_part_of_the_figure():
    whole = body_map.paint("back", (400, 800), (GRAY, WHITE))
    part = body_map.paint("back", (400, 800), (GRAY, WHITE), (0.25, 0.1, 0.75, 0.6))
    reduced = part[..., 3].reshape(400, 2, 200, 2).mean(axis=(1, 3))
    assert np.abs(reduced - whole[80:480, 100:300, 3]).mean() < 3


# ---------------------------------------------------------------------------- skin type


@given(sheets, st.integers(0, 9))
def test_each_sheet_gives_a_type_and_no_darker_answer_a_lighter_one(sheet, question):
    found = skin_type.skin_type(sheet)
    assert found in range(1, 7)
    darker = [*sheet]
    darker[question] = min(sheet[question] + 1, 4)
    assert found <= skin_type.skin_type(darker) <= found + 1


@pytest.mark.parametrize(
    ("points", "found"),
    [(0, 1), (6, 1), (7, 2), (13, 2), (14, 3), (20, 3), (21, 4), (27, 4), (28, 5), (34, 5), (35, 6),
     (40, 6)],
)  # fmt: skip
def test_the_bands_of_the_score(points, found):
    sheet = [min(4, max(0, points - 4 * n)) for n in range(10)]
    assert skin_type.score(sheet) == points
    assert skin_type.skin_type(sheet) == found


@pytest.mark.parametrize("sheet", [[], [0] * 9, [0] * 11, [5] + [0] * 9, [-1] + [0] * 9])
def test_half_a_sheet_gives_no_type(sheet):
    with pytest.raises(ValueError, match="10 answers of 0 to 4 points"):
        skin_type.skin_type(sheet)


# ---------------------------------------------------------------------------- the form


def test_a_form_gives_back_the_person_that_it_was_made_of():
    person = Person("1", "Ada", 1980, "female", 3, ("sunbeds",), "a note", "2026-01-01T00:00:00Z",
                    (("urn:clinic", "42"),))  # fmt: skip
    assert all(vars(person).values())  # also what the form does not show
    draft = Draft.of(person)
    assert not draft.changed
    assert draft.person() == person
    draft.notes = "another"
    assert draft.changed


@pytest.mark.parametrize(
    ("name", "year", "wrong"),
    [
        ("Ada", "1980", set()),
        ("Ada", "", set()),
        ("  ", "1980", {"name"}),
        ("", "80", {"name", "year"}),
        ("Ada", "2027", {"year"}),
        ("Ada", "1905", {"year"}),
        ("Ada", "-1980", {"year"}),
        ("Ada", "²", {"year"}),
    ],
)
def test_a_form_says_which_field_is_wrong(name, year, wrong):
    assert set(Draft(name=name, year=year).faults(TODAY)) == wrong


@given(st.text(), st.text())
def test_what_a_form_takes_the_store_takes(name, year):
    draft = Draft(name=name, year=year)
    if not draft.faults(date.today()):
        validation.validate(draft.person(), clock.now())


# ---------------------------------------------------------------------------- lists


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(derivation, "ARGON2", {"iterations": 1, "lanes": 1, "memory_cost": 64})
    opened = Store.create(tmp_path / "cases.db", "a passphrase")
    yield opened
    opened.close()


def _capture(store: Store, lesion: Lesion, triage: str, taken: str) -> None:
    found = analysis((4, 3), triage=triage)
    store.add_capture(Capture("", lesion.id, taken, found, (4, 3)), b"picture")


def test_a_spot_shows_its_newest_picture_that_could_be_judged(store):
    person = store.add_person(Person("", "Ada", 1980))
    arm = store.add_lesion(Lesion("", person.id, "arm"))
    back = store.add_lesion(Lesion("", person.id, "back"))
    store.add_lesion(Lesion("", person.id, "knee"))
    # Taken before, saved later: an import.
    _capture(store, arm, "low", "2026-02-01T00:00:00Z")
    _capture(store, arm, "urgent", "2026-01-01T00:00:00Z")
    _capture(store, arm, "retake", "2026-02-02T00:00:00Z")
    _capture(store, back, "retake", "2026-02-03T00:00:00Z")
    found = people.spots(store, person.id)
    assert [spot.triage for spot in found] == ["low", "retake", None]
    assert [spot.pictures for spot in found] == [3, 1, 0]
    assert found[0].taken == "2026-02-02T00:00:00Z"
    assert present.spot(found[0]).startswith("3 pictures")
    assert present.estimated(found[2].triage).title == "No picture yet"


def test_the_list_shows_the_gravest_of_a_persons_spots(store):
    ada = store.add_person(Person("", "Ada", 1980))
    store.add_person(Person("", "Bea"))
    for title, triage in (("arm", "low"), ("leg", "see a doctor"), ("back", "retake")):
        _capture(store, store.add_lesion(Lesion("", ada.id, title)), triage, "")
    first, second = people.known(store, store.people())
    assert (first.person, first.spots, first.triage) == (ada, 3, "see a doctor")
    assert (second.spots, second.triage) == (0, None)
    assert present.row(first, TODAY) == "About 46 years old  ·  3 spots"
    assert present.row(second, TODAY) == "0 spots"


def test_a_list_opens_no_analysis_and_each_spot_once(store, monkeypatch):
    ada, bea = store.add_person(Person("", "Ada")), store.add_person(Person("", "Bea"))
    for person in (ada, bea):
        for title in ("arm", "leg"):
            lesion = store.add_lesion(Lesion("", person.id, title))
            for triage in ("retake", "low", "urgent", "low"):
                _capture(store, lesion, triage, "")
    opened = []
    record, whole = Keys.record, Keys.open
    monkeypatch.setattr(Keys, "record", lambda *a: opened.append(a[2]) or record(*a))
    monkeypatch.setattr(Keys, "open", lambda *a: opened.append(a[2]) or whole(*a))
    listed = people.known(store, [ada, bea])
    assert opened == ["summary"] * 4
    assert [(one.spots, one.triage) for one in listed] == [(2, "low")] * 2
    opened.clear()
    assert [spot.pictures for spot in people.spots(store, ada.id)] == [4, 4]
    assert sorted(opened) == ["lesion"] * 2 + ["summary"] * 2


def test_a_spot_follows_what_becomes_of_its_pictures(store):
    ada = store.add_person(Person("", "Ada"))
    arm, leg = (store.add_lesion(Lesion("", ada.id, title)) for title in ("arm", "leg"))
    for triage in ("low", "urgent"):
        _capture(store, arm, triage, "")

    def triages() -> list[str | None]:
        return [spot.triage for spot in people.spots(store, ada.id)]

    first, second = store.captures(arm.id)
    assert triages() == ["urgent", None]
    store.update_capture(replace(second, lesion=leg.id))
    assert triages() == ["low", "urgent"]
    store.update_capture(replace(first, analysis=analysis((4, 3), triage="see a doctor")))
    assert triages() == ["see a doctor", "urgent"]
    store.delete_capture(second.id)
    assert triages() == ["see a doctor", None]
    store.check()


def test_a_result_that_cannot_be_read_here_is_not_taken_for_a_low_risk(store, monkeypatch):
    ada = store.add_person(Person("", "Ada"))
    arm = store.add_lesion(Lesion("", ada.id, "arm"))
    _capture(store, arm, "low", "")
    with monkeypatch.context() as patch:
        patch.setattr(schema, "analysis_version", lambda: 2)
        _capture(store, arm, "low", "")
    (spot,) = people.spots(store, ada.id)
    assert present.estimated(spot.triage).title == "Result of another version of dermedge"
    (known,) = people.known(store, [ada])
    assert known.triage == "other version"
    (low, other) = history(store.captures(arm.id))
    assert (low.triage, other.triage, other.area_mm2) == ("low", "other version", None)


@pytest.mark.parametrize("today", [date(1970, 1, 1), date(2099, 1, 1)])
def test_with_a_wrong_clock_nobody_is_unborn_or_too_old(today):
    assert Draft(name="Ada", year="1984").faults(today) == {}
    assert "clock" in Draft(name="Ada", year="2030").faults(today)["year"]
    assert "four digits" in Draft(name="Ada", year="1850").faults(today)["year"]
    assert people.age(Person("1", "Ada", 1984), today) is None
    assert present.facts(Person("1", "Ada", 1984), today) == ""


def test_the_day_of_a_picture_that_the_clock_misdated_is_not_told(store, monkeypatch):
    ada = store.add_person(Person("", "Ada"))
    arm = store.add_lesion(Lesion("", ada.id, "arm"))
    monkeypatch.setattr(clock, "now", lambda: "1970-01-01T00:05:00.000Z")
    _capture(store, arm, "low", "")
    (spot,) = people.spots(store, ada.id)
    assert present.spot(spot) == "1 picture  ·  date not known"


def test_facts_name_only_what_is_known():
    person = Person("1", "Ada", 1980, "female", 4)
    assert present.facts(person, TODAY) == "About 46 years old  ·  female  ·  skin type IV"
    assert present.facts(Person("1", "Ada"), TODAY) == ""


# ---------------------------------------------------------------------------- the classifier


class _Picture:
    name, live, interval = "picture", False, 0.001

    def __init__(self, pixels):
        self.pixels = pixels

    def read(self):
        return Frame(self.pixels, 1)

    def close(self):
        pass


def test_age_sex_and_place_of_the_spot_reach_a_classifier_that_takes_them(make_bundle, tmp_path):
    bundle = Bundle.open(make_bundle(metadata=("age", "sex", "site")))
    session = Session(tmp_path / "home", bundle.manifest)
    pixels = procedural.draw(3, "phone", (480, 640), label="mel", artefacts=()).image
    worker = Worker(lambda: _Picture(pixels), Analyzer(bundle), None)
    worker.start()

    def melanoma() -> float:
        shot = session.shot(Frame(pixels, 1), TODAY)
        assert worker.capture(shot)
        assert worker.wait_for(lambda s: s.result and s.result.shot_id == shot.id, 60)
        return worker.snapshot().result.analysis["probabilities"]["mel"]

    try:
        nobody = melanoma()
        session.person = Person("1", "Ada", 1980, "female")
        session.lesion = Lesion("2", "1", "the old one", "front", 0.79, 0.42)
        assert session.metadata(TODAY) == {
            "age": 46,
            "sex": "female",
            "site": "left forearm, front",
        }
        assert melanoma() > nobody
    finally:
        worker.stop()


def test_a_spot_that_lies_off_the_figure_is_told_by_its_name(tiny_bundle, tmp_path):
    session = Session(tmp_path, Bundle.open(tiny_bundle).manifest)
    session.person, session.lesion = Person("1", "Ada"), Lesion("2", "1", "heel", "front", 0, 0)
    assert session.metadata(TODAY) == {"site": "heel"}
    session.lesion = Lesion("2", "1", "the new one", "front", 0, 0)  # no part of the body
    assert session.metadata(TODAY) == {}


# ---------------------------------------------------------------------------- keeping


def _result(name: str) -> Result:
    return Result(analysis=analysis((4, 3), image=name), png=name.encode())


def test_a_sitting_that_cannot_be_saved_leaves_no_empty_spot(
    store, tiny_bundle, tmp_path, monkeypatch
):
    session = Session(tmp_path / "home", Bundle.open(tiny_bundle).manifest)
    session.store = store
    session.person = store.add_person(Person("", "Ada"))
    given = session.results = (_result("first"), _result("second"))
    spot = Lesion("", session.person.id, "left knee")
    add = Store.add_capture

    def full(*_args):
        raise StoreError("the disk is full")

    monkeypatch.setattr(Store, "add_capture", full)
    with pytest.raises(StoreError, match="disk is full"):
        session.keep(spot, given)
    assert store.lesions(session.person.id) == []
    assert session.lesion is None
    assert not session.saved
    monkeypatch.setattr(Store, "add_capture", add)
    session.accept(session.keep(spot, given))
    (kept,) = store.lesions(session.person.id)
    assert session.lesion == kept
    assert session.saved
    assert [store.picture(it.id) for it in store.captures(kept.id)] == [b"first", b"second"]
    session.accept(session.keep(kept, session.results))  # pressed twice
    assert len(store.captures(kept.id)) == 2
    assert present.kept(session.person, kept) == "Kept: Ada, left knee"
