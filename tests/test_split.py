"""Splits: no lesion or patient in two parts, whatever the data and the order of its records."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermedge.data import PARTS, DataError, DataSet, Record, Split, load, make_split
from dermedge.data.split import group_records

LABELS = ("nv", "mel", "bkl", "other", None)


def record(name: str, **facts) -> Record:
    return Record(id=name, image=Path(f"{name}.png"), **facts)


def data_set(records, **facts) -> DataSet:
    return DataSet("csv", Path("."), tuple(records), (), "CC0", **facts)


def part_of(split: Split) -> dict[str, str]:
    return {name: part for part, ids in split.parts.items() for name in ids}


@st.composite
def data_sets(draw, official=(None,)):
    count = draw(st.integers(1, 60))
    names = st.none() | st.integers(0, 25).map(str)
    records = [
        record(
            f"r{number}",
            label=draw(st.sampled_from(LABELS)),
            lesion_id=draw(names),
            patient_id=draw(names),
            official=draw(st.sampled_from(official)),
        )
        for number in range(count)
    ]
    ids = st.integers(0, count - 1).map(lambda number: f"r{number}")
    return data_set(records, same=tuple(draw(st.lists(st.tuples(ids, ids), max_size=4))))


@settings(max_examples=100)
@given(data_sets(), st.integers(0, 3))
def test_every_picture_is_in_one_part_and_no_group_crosses(found, seed):
    split = make_split(found, seed)
    named = [name for part in PARTS for name in split.parts[part]]
    assert sorted(named) == sorted(r.id for r in found.records)
    assert all(list(ids) == sorted(ids) for ids in split.parts.values())
    where = part_of(split)
    for key in ("lesion_id", "patient_id"):
        seen = {}
        for one in found.records:
            name = getattr(one, key)
            if name is not None:
                assert seen.setdefault(name, where[one.id]) == where[one.id]
    assert all(where[one] == where[other] for one, other in found.same)
    assert split.notes == ()


@settings(max_examples=100)
@given(data_sets(official=(None, "train", "test")), st.randoms(use_true_random=False))
def test_order_of_the_records_does_not_matter(found, random):
    shuffled = list(found.records)
    random.shuffle(shuffled)
    pairs = [tuple(reversed(pair)) for pair in found.same]
    random.shuffle(pairs)
    other = replace(found, records=tuple(shuffled), same=tuple(pairs))
    assert make_split(other).sha256 == make_split(found).sha256


@settings(max_examples=100)
@given(data_sets(official=("train", "test")))
def test_official_parts_are_kept_and_val_comes_out_of_train(found):
    split = make_split(found)
    where = part_of(split)
    for group in group_records(found.records, found.same):
        officials = {r.official for r in group}
        parts = {where[r.id] for r in group if r.id in where}
        if officials == {"train"}:
            assert len(parts) == 1
            assert parts <= {"train", "val"}
        else:
            kept = max(officials, key=PARTS.index)
            assert all(where.get(r.id) == (kept if r.official == kept else None) for r in group)
        if len(officials) > 1:
            assert any(r.id in note for r in group for note in split.notes)


def test_official_val_stays_and_no_test_is_made_up():
    # A picture of which the publisher names no part counts to train.
    records = [record(f"t{n}", official="train" if n else None, label="nv") for n in range(20)]
    records += [record(f"v{n}", official="val", label="nv", lesion_id="L") for n in range(3)]
    records.append(record("t_cross", official="train", label="nv", lesion_id="L"))
    split = make_split(data_set(records))
    assert split.parts["val"] == ("v0", "v1", "v2")
    # The publisher put this lesion into both parts: what is tested is not learnt.
    assert "t_cross" not in split.parts["train"]
    assert len(split.parts["train"]) == 20
    assert split.parts["test"] == ()
    assert len(split.notes) == 1
    assert "left out t_cross" in split.notes[0]


@pytest.mark.parametrize(
    ("parts", "amiss"),
    [(("train",), "no validation part"), (("train", "val", "test"), "a test part")],
)
def test_only_a_validation_part_without_a_test_part_can_be_tested_on(parts, amiss):
    records = [record(f"{part}{n}", official=part) for part in parts for n in range(3)]
    with pytest.raises(DataError, match=f"csv has {amiss} of its publisher"):
        make_split(data_set(records), test_on="val")


@pytest.mark.parametrize("fractions", [(0.7, 0.15, 0.15), (0.5, 0.25, 0.25), (0.8, 0.2, 0.0)])
def test_fractions_are_met_in_every_class(fractions):
    records = []
    for label, lesions in (("nv", 400), ("mel", 90), ("bkl", 60), ("df", 20)):
        for lesion in range(lesions):
            for view in range(1 + lesion % 3):
                name = f"{label}{lesion}-{view}"
                records.append(record(name, label=label, lesion_id=f"{label}{lesion}"))
    split = make_split(data_set(records), 5, fractions)
    total = Counter(r.label for r in records)
    for part, fraction in zip(PARTS, fractions, strict=True):
        have = Counter(r.label for r in split.select(records, part))
        for label in total:
            assert abs(have[label] - fraction * total[label]) <= 3, (part, label)


def test_a_small_set_of_many_classes_fills_every_part():
    labels = ("nv", "mel", "bkl", "bcc", "df", "vasc", "akiec")
    records = [record(f"{label}{n}", label=label) for label in labels for n in range(3)]
    sizes = [len(ids) for ids in make_split(data_set(records)).parts.values()]
    assert sizes[0] >= 12
    assert min(sizes) >= 2


def test_views_of_one_lesion_are_dealt_to_every_part():
    records = [
        record(f"{lesion}-{view}", label="nv", lesion_id=str(lesion))
        for lesion in range(100)
        for view in range(3 if lesion < 30 else 1)
    ]
    where = part_of(make_split(data_set(records)))
    several = Counter(where[f"{lesion}-0"] for lesion in range(30))
    assert min(several[part] for part in PARTS) >= 2


def test_seed_changes_the_split_and_nothing_else_does():
    records = [record(f"r{n}", label="nv") for n in range(60)]
    first = make_split(data_set(records), 0)
    assert make_split(data_set(records), 0) == first
    assert make_split(data_set(records), 1).parts != first.parts
    moved = [replace(r, image=Path("/elsewhere") / r.image, age=3.0) for r in records]
    assert make_split(data_set(moved), 0).sha256 == first.sha256
    # The deal itself is frozen: a change here would silently move pictures between parts.
    assert first.sha256[:16] == "9165087d0fda90a4"
    # Of several classes the rarest are dealt first, of those alike the malignant, None last.
    labels = ("nv",) * 5 + ("mel", "mel", "bkl", "bkl", None, None)
    several = [
        record(f"r{n}", label=labels[n % 11], lesion_id=str(n - n % 4 % 3)) for n in range(66)
    ]
    assert make_split(data_set(several)).sha256[:16] == "64820caf5b29575c"


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (1.1, -0.1, 0.0), (0.5, 0.2, 0.2)])
def test_wrong_fractions(fractions):
    with pytest.raises(DataError, match="sum to 1"):
        make_split(data_set([record("a")]), 0, fractions)


def test_pairs_of_unknown_pictures_are_noted():
    split = make_split(data_set([record("a"), record("b")]), same=[("a", "z")])
    assert len(split.notes) == 1


def stored(tmp_path) -> Path:
    split = make_split(data_set([record(f"r{n}", label="nv") for n in range(20)]), 3)
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split
    return tmp_path / "split.json"


def test_a_changed_split_file_is_refused_in_one_line(tmp_path):
    file = stored(tmp_path)
    content = json.loads(file.read_text())
    moved = content["parts"]["test"].pop()
    content["parts"]["train"].append(moved)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="hash does not match") as caught:
        Split.load(file)
    assert "\n" not in str(caught.value)


@settings(max_examples=100)
@given(data=st.data())
def test_any_damage_to_a_split_file_is_refused(tmp_path_factory, data):
    file = stored(tmp_path_factory.mktemp("split"))
    whole = file.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 2))
    kind = data.draw(st.sampled_from(("cut", "byte", "json")))
    if kind == "cut":
        damaged = whole[:place]
    elif kind == "byte":
        damaged = whole[:place] + b"#" + whole[place + 1 :]
    else:
        values = st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(("format", "parts", "seed")), inner, max_size=3)
            ),
            max_leaves=5,
        )
        content = json.loads(whole)
        content[data.draw(st.sampled_from(sorted(content)))] = data.draw(values)
        damaged = json.dumps(content).encode()
        if json.loads(damaged) == json.loads(whole):
            return
    file.write_bytes(damaged)
    with pytest.raises(DataError) as caught:
        Split.load(file)
    assert "\n" not in str(caught.value)


def test_select_names_what_is_missing():
    records = [record(f"r{n}", label="nv") for n in range(10)]
    split = make_split(data_set(records))
    assert [r.id for r in split.select(reversed(records), "train")] == list(split.parts["train"])
    gone = split.parts["train"][0]
    with pytest.raises(DataError, match=f"first: {gone}"):
        split.select([r for r in records if r.id != gone], "train")
    with pytest.raises(DataError, match="no part 'holdout'"):
        split.select(records, "holdout")


def test_ham10000_split_keeps_lesions_together(shared_data):
    if not (shared_data / "HAM10000").is_dir():
        pytest.skip(f"HAM10000 is not in {shared_data}")
    found = load("ham10000", shared_data / "HAM10000")
    split = make_split(found)
    total = Counter(r.label for r in found.records)
    lesions = {p: {r.lesion_id for r in split.select(found.records, p)} for p in PARTS}
    assert sum(len(names) for names in lesions.values()) == 7470
    for part, fraction in zip(PARTS, (0.7, 0.15, 0.15), strict=True):
        have = Counter(r.label for r in split.select(found.records, part))
        assert all(abs(have[name] - fraction * total[name]) <= 3 for name in total)
