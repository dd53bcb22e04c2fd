"""What is known of a person, as numbers: absent adds nothing, unknown words do no harm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermedge import UserError
from dermedge.metadata import FIELDS, REGIONS, checked, encode, region, understood, width


@given(
    age=st.none() | st.floats(allow_nan=True, allow_infinity=True),
    sex=st.none() | st.text(max_size=8),
    site=st.none() | st.text(max_size=30),
    fields=st.lists(st.sampled_from(FIELDS), unique=True),
)
def test_whatever_is_told_gives_numbers_of_the_right_width(age, sex, site, fields):
    numbers = encode(fields, age, sex, site)
    assert numbers.shape == (width(fields),)
    assert numbers.dtype == np.float32
    assert ((numbers >= 0) & (numbers <= 1)).all()


def test_absent_values_are_zeros():
    assert not encode(FIELDS).any()
    assert not encode(("sex",), age=60, site="back").any()
    assert not encode(FIELDS, age=float("nan"), sex="", site="unknown").any()


@given(st.floats(0, 120))
def test_an_age_is_shared_by_its_two_neighbours(age):
    numbers = encode(("age",), age=age)
    assert numbers.sum() == pytest.approx(1, abs=1e-6)
    assert (numbers > 0).sum() <= 2


def test_near_ages_are_near():
    for age in range(100):
        step = np.abs(encode(("age",), age=age) - encode(("age",), age=age + 1)).sum()
        assert step <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("FACE", "head/neck"),
        ("NOSE", "head/neck"),
        ("scalp", "head/neck"),
        ("anterior torso", "trunk"),
        ("lower back", "trunk"),
        ("chest", "trunk"),
        ("FOREARM", "upper extremity"),
        ("HAND", "upper extremity"),
        ("lower extremity", "lower extremity"),
        ("THIGH", "lower extremity"),
        ("foot", "lower extremity"),
        ("palms/soles", "palms/soles"),
        ("acral", "palms/soles"),
        ("oral/genital", "oral/genital"),
        ("lateral_torso", "trunk"),
        ("Face, lateral", "head/neck"),
        ("face antérieure de la jambe", None),
        ("face dorsale main", None),
        ("linke Backe", None),
        ("seit 2 Jahren vorhanden", None),
        ("Handy-Foto", None),
        ("beide handen", "upper extremity"),
        ("rechter Handrücken", "upper extremity"),
        ("Handfläche", "palms/soles"),
        ("handpalm", "palms/soles"),
        ("Handrücken", "upper extremity"),
        ("congenital", None),
        ("unknown", None),
        ("", None),
        (None, None),
    ],
)
def test_words_of_the_data_sets_for_a_site(words, expected):
    assert region(words) == expected


def test_regions_name_themselves():
    assert [region(name) for name in REGIONS] == list(REGIONS)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"sex": "F"}, "metadata sex 'F' is not understood: give male or female, or leave it out"),
        ({"sex": 1}, "metadata sex 1 is not"),
        ({"site": "R\u00fccken"}, "metadata site 'R\u00fccken' is not understood: give one of"),
        ({"site": 3}, "metadata site 3 is not"),
        ({"age": -1}, "metadata age -1 is not understood: give 0 to 120 years"),
        ({"age": 121}, "metadata age 121 is not"),
        ({"age": float("inf")}, "metadata age inf is not"),
        ({"age": "60"}, "metadata age '60' is not"),
        ({"age": True}, "metadata age True is not"),
        ({"Age": 60}, "metadata 'Age' is not known: there are age, sex, site"),
    ],
)
def test_what_is_not_understood_of_a_person_is_an_error(metadata, reason):
    with pytest.raises(UserError) as refused:
        checked({"age": 60, **metadata})
    assert str(refused.value).startswith(reason)
    assert "\n" not in str(refused.value)
    # A data set's reader has counted it.
    assert understood({"site": "back", **metadata}).keys() == {"site"} - metadata.keys()


def test_what_is_not_known_of_a_person_is_left_out():
    known = {"age": np.float32(60), "sex": "female", "site": "left forearm"}
    assert checked(known) == understood(known) == known
    assert checked({"age": float("nan"), "sex": float("nan"), "site": ""}) == {}
    assert checked({"age": 0, "sex": None}) == {"age": 0}
    assert checked(None) == checked({}) == {}
