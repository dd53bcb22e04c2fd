"""Two bundles on the same pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import intervals
from benchmarks.accuracy.paired import compare, read_pictures
from dermedge import UserError
from dermedge.evaluation import metrics

HEAD = "id,label,malignant,malignancy,likely,p_mel,p_nv"


def table(folder: Path, name: str, wrong: int) -> Path:
    """Forty pictures, of which the first `wrong` get the other class and risk."""
    lines = [HEAD]
    for number in range(40):
        mel = number % 2 == 0
        said = mel != (number < wrong)
        risk = 0.9 if said else 0.1
        label, likely = ("mel", "nv")[not mel], ("mel", "nv")[not said]
        lines.append(f"p{number},{label},{mel},{risk},{likely},{risk},{1 - risk}")
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_difference_is_of_the_same_pictures(tmp_path):
    worse, better = (read_pictures(table(tmp_path, f"{n}", n)) for n in (10, 2))
    clusters = {f"p{number}": number for number in range(40)}
    found = compare(worse, better, clusters)
    assert found["likely_balanced_accuracy"]["value"] == pytest.approx(8 / 40)
    assert found["malignant_auc"]["low"] > 0
    same = compare(better, better, clusters)
    assert {value for figure in same.values() for value in figure.values()} == {0.0}


def test_no_resample_differs_and_yet_nobody_is_certain():
    """Twenty pictures named alike: "+0.0000 (+0.0000 to +0.0000)"; the AUC of a class whose one
    picture has the lowest score was "0.000 (0.000 to 0.000)"."""
    each, half = np.arange(20), np.arange(20) < 10
    right = intervals.Share(half)
    assert intervals.difference(right, right, each) == {
        "value": 0.0,
        "low": pytest.approx(-0.1611, abs=1e-4),
        "high": pytest.approx(0.1611, abs=1e-4),
    }
    two_of_each = intervals.interval(intervals.Share(each >= 0), each // 2)
    assert two_of_each["low"] == pytest.approx(0.7225, abs=1e-4)  # Wilson's of ten
    lowest = metrics.Ranking(each, each == 0).roc_auc
    assert intervals.interval(lowest, each) == {"value": 0.0, "low": None, "high": None}


def test_classes_are_compared_that_both_know(tmp_path):
    """Those of the first table counted: the same two bundles in the other order gave another
    figure, and one that does not know a class was wrong by it."""
    two = read_pictures(table(tmp_path, "two", 2))
    file = tmp_path / "three.csv"
    lines = table(tmp_path, "same", 2).read_text().splitlines()
    file.write_text("\n".join([lines[0] + ",p_bcc", *(f"{line},0" for line in lines[1:])]))
    three = read_pictures(file)
    for each in (two, three):
        each["p39"] |= {"label": "bcc", "likely": "bcc" if each is three else "nv"}
    clusters = {f"p{number}": number for number in range(40)}
    for pair in ((two, three), (three, two)):
        assert compare(*pair, clusters)["likely_balanced_accuracy"]["value"] == 0


def test_outlines_are_compared_where_both_tables_measure_them(tmp_path):
    one = read_pictures(table(tmp_path, "one", 0))
    clusters = {f"p{number}": number for number in range(40)}
    assert "jaccard" not in compare(one, one, clusters)
    old = {name: row | {"jaccard": "0.8"} for name, row in one.items()}
    new = {name: row | {"jaccard": "" if name == "p0" else "0.9"} for name, row in one.items()}
    found = compare(old, new, clusters)["jaccard"]
    assert [found[key] for key in ("value", "low", "high")] == pytest.approx([0.1] * 3)


def test_a_table_that_a_spreadsheet_saved_says_the_same(tmp_path):
    plain, other = table(tmp_path, "plain", 10), table(tmp_path, "other", 2)
    saved = plain.with_name("saved.csv")
    saved.write_text(plain.read_text().replace("True", "TRUE").replace("False", "FALSE"))
    clusters, new = {f"p{number}": number for number in range(40)}, read_pictures(other)
    assert compare(read_pictures(saved), new, clusters) == compare(
        read_pictures(plain), new, clusters
    )
    saved.write_text(plain.read_text().replace("True", "WAHR"))
    with pytest.raises(UserError, match=r"no pictures\.csv"):
        read_pictures(saved)


@pytest.mark.parametrize("column", ["malignancy", "jaccard"])
@pytest.mark.parametrize("cell", ['"0,1"', "100000", "nan", "-0.1"])
def test_numbers_that_a_spreadsheet_changed_are_refused(cell, column, tmp_path):
    """A decimal comma ended in a traceback; 0.100000 without its point ranked above all."""
    path, risk = tmp_path / "saved.csv", cell if column == "malignancy" else "0.1"
    path.write_text(f"{HEAD},jaccard\np0,mel,True,{risk},mel,0.1,0.9,{cell}\n")
    with pytest.raises(UserError, match=rf"the {column} of p0 is .*no number from 0 to 1"):
        read_pictures(path)


def test_a_picture_that_stands_twice_in_a_table_is_refused(tmp_path):
    path = table(tmp_path, "one", 0)
    path.write_text(path.read_text() + "p0,mel,True,0.1,nv,0.1,0.9\n")
    with pytest.raises(UserError, match="1 rows name a picture again"):
        read_pictures(path)


@pytest.mark.parametrize("corrected", [{"label": "nv"}, {"malignant": "False"}, {"malignant": ""}])
def test_tables_of_other_diagnoses_are_refused(corrected, tmp_path):
    """Else the new bundle would be judged by the labels that were corrected since."""
    old = read_pictures(table(tmp_path, "one", 0))
    new = old | {"p0": old["p0"] | corrected}
    clusters = {f"p{number}": number for number in range(40)}
    with pytest.raises(UserError, match=r"what 1 pictures show \(first: p0\)"):
        compare(old, new, clusters)


def test_other_pictures_are_refused(tmp_path):
    (tmp_path / "outlines.csv").write_text(f"{HEAD}\np0,,True,,,,\n")
    with pytest.raises(UserError, match="of no picture"):
        read_pictures(tmp_path / "outlines.csv")
    one = read_pictures(table(tmp_path, "one", 0))
    with pytest.raises(UserError, match="not the same"):
        compare(one, {"p0": one["p0"]}, {})
    with pytest.raises(UserError, match="not in the data set"):
        compare(one, one, {"p0": 0})
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match=r"no pictures\.csv"):
        read_pictures(tmp_path / "other.csv")
