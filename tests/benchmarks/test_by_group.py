"""Figures of groups of people, and the gaps between them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.by_group import by_group
from benchmarks.accuracy.figures import Row
from benchmarks.accuracy.selection import select
from benchmarks.accuracy.subset import Subset
from benchmarks.report import cards
from benchmarks.schema import renamed
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import Thresholds
from dermedge.data import DataError, Record, load

pytestmark = pytest.mark.usefixtures("few_resamples")
LIMITS = Thresholds(see_doctor=0.5)


def row(number: int, tone: int | None, sick: bool, risk: float) -> Row:
    record = Record(str(number), Path("x"), skin_tone=tone, malignant=sick, lesion_id=str(number))
    return Row(record, number, probabilities=np.array([risk, 1 - risk]))


def people() -> list[Row]:
    """Twenty of each kind of tones 5 and 1; of 1, half of the malignant ones are missed. Of tone 0
    one malignant beside twenty benign."""
    rows = []
    for tone in (5, 1):
        for number in range(20):
            found = tone == 5 or number % 2 == 0
            rows.append(row(len(rows), tone, True, LIMITS.see_doctor if found else 0.2))
            rows.append(row(len(rows), tone, False, 0.1))
    rows += [row(1000 + n, 0, n == 0, 0.1) for n in range(21)]
    return [*rows, *(row(2000 + n, None, False, 0.9) for n in range(30))]


def test_gaps_are_of_groups_that_can_be_judged():
    groups, gaps = by_group(people(), ("mel", "nv"), LIMITS)
    assert [(g["scale"], g["group"], g["malignant"], g["benign"]) for g in groups] == [
        ("skin_tone", "5", 20, 20),
        ("skin_tone", "1", 20, 20),
        ("skin_tone", "0", 1, 20),
        ("skin_tone", "not stated", 0, 30),
    ]
    assert groups[0]["too_few"] == []
    assert groups[2]["too_few"] == ["malignant_auc", "malignant_sensitivity"]
    found = {(gap["measure"], gap["kind"]): gap for gap in gaps}
    # All twenty are found: not a certainty, but 0.839 to 1.
    assert groups[0]["metrics"]["malignant_sensitivity"]["low"] == pytest.approx(0.8389, abs=1e-4)
    assert found["malignant_specificity", "difference"]["low"] is None
    gap = found["malignant_sensitivity", "difference"]
    assert (gap["groups"], gap["value"], gap["pictures"]) == (["5", "1"], 0.5, 40)
    assert 0 < gap["low"] < 0.5 < gap["high"] < 1
    # Thirty who do not state it and are all alarmed are no group of the gap.
    assert found["malignant_specificity", "worst"]["value"] == 1
    worst = found["malignant_sensitivity", "worst"]
    assert (worst["groups"], worst["value"]) == (["1"], 0.5)


def test_a_gap_that_is_the_same_in_all_resamples_has_no_limits():
    rows = [row(number, 5 if number < 20 else 1, True, number // 20) for number in range(40)]
    gap = by_group(rows, ("mel", "nv"), LIMITS)[1][0]
    assert (gap["measure"], gap["kind"], gap["value"]) == (
        "malignant_sensitivity",
        "difference",
        -1,
    )
    assert gap["low"] is gap["high"] is None


def test_no_gap_where_one_group_alone_can_be_judged():
    rows = [one for one in people() if one.record.skin_tone in (5, None)]
    groups, gaps = by_group(rows, ("mel", "nv"), LIMITS)
    assert len(groups) == 2
    assert gaps == []


def test_groups_of_earlier_results_are_still_read():
    old = {"groups": [{"skin_type": "I-II", "pictures": 3}], "schema": "dermedge evaluation 3"}
    new = renamed.evaluation(old)
    assert new["groups"][0] == {
        "scale": "skin_type",
        "group": "I-II",
        "benign": None,
        "too_few": [],
        "pictures": 3,
    }
    assert new["gaps"] == []


def test_a_card_says_which_groups_are_too_few():
    head = {"malignant": "20", "benign": "20", "value": "0.5", "low": "0.4", "high": "0.6"}
    head |= {"measure": "malignant_auc", "pictures": "40"}
    rows = [
        {**head, "group": "skin tone 1", "judged": "too few"},
        {**head, "group": "skin tone 5", "judged": "yes"},
        {**head, "group": "gap skin tone: 5 - 1", "value": "0.1", "low": "-0.1"},
        {**head, "group": "worst skin tone: 1"},
    ]
    (scale,) = cards._people(rows)
    assert scale["groups"][1:] == [
        ["5", "40", "20", "20", "0.500 (0.400 to 0.600)"],
        ["1", "40", "20", "20", "too few"],
    ]
    assert scale["gaps"][1][1:] == [
        "5 minus 1",
        "+0.100 (-0.100 to +0.600)",
        "1",
        "0.500 (0.400 to 0.600)",
    ]


def test_pictures_are_left_out_by_lesion_and_kind(tiny_bundle, discs, tmp_path):
    data_set, bundle = load("csv", discs), Bundle.open(tiny_bundle)
    table = tmp_path / "twins.csv"
    table.write_text("lesion_id,other\nl0,x\nl3,y\nlost,z\n")
    found = select(data_set, bundle, "all", subset=Subset(left_out=table))
    assert found.pictures == 36
    assert found.subset == "without those of twins.csv"
    assert found.warnings[-1].startswith("1 of the 3 that twins.csv names by lesion_id are not in ")
    assert "'lost'" in found.warnings[-1]
    kinds = ["clinical", None, "dermoscopic"]
    mixed = [replace(r, modality=kinds[n % 3]) for n, r in enumerate(data_set.records)]
    some = select(replace(data_set, records=tuple(mixed)), bundle, "all", subset=Subset("clinical"))
    assert some.pictures == 14
    whole = replace(data_set, records=tuple(mixed))
    test = select(whole, bundle, "test", baselines=True, subset=Subset("clinical"))
    # A baseline was fitted on the other kind, too, and was easier to beat.
    assert {record.modality for record in test.train} == {"clinical"}
    assert some.warnings[-1].startswith("13 of the 40 pictures of csv do not state whether they")
    with pytest.raises(DataError, match="does not say which"):
        select(data_set, bundle, "all", subset=Subset("clinical"))
    table.write_text("lesion_id\nunknown\n")
    with pytest.raises(DataError, match="names no lesion_id"):
        select(data_set, bundle, "all", subset=Subset(left_out=table))
    table.write_text("name\nl0\n")
    with pytest.raises(DataError, match="needs one column"):
        select(data_set, bundle, "all", subset=Subset(left_out=table))
