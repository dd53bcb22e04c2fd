"""The fuzz target of a receiver's answers, over its seeds and some changes of each."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("pydicom", reason="answers may be DICOM")
from edge_app.referral.answers import from_fhir
from edge_app.referral.answers_dicom import from_dicom
from tests.fuzz import answers


def test_seeds_are_answers():
    for seed in answers.SEEDS[:3]:
        assert len(from_fhir(seed, [answers.MINE])[0]) == 1
    assert len(from_fhir(answers.SEEDS[3], [answers.MINE])[0]) == 3
    assert from_dicom(answers.SEEDS[4], [answers.MINE]).text == "m: benign"


def test_changed_bytes_are_taken_or_refused_in_one_line():
    chance = random.Random(3)
    for _ in range(400):
        data = bytearray(chance.choice(answers.SEEDS))
        for _change in range(chance.choice((1, 1, 4, 40))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        answers.one(bytes(data[: chance.choice((len(data), chance.randrange(len(data))))]))
