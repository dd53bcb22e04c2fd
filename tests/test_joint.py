"""Several data sets as one: ids, splits over all of them, and lesions that two of them show."""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from dermedge import data
from dermedge.data import DataError, DataSet, Record, Split, make_split
from dermedge.data.joint import join, joint_split, keyed, source_of, split_of_source
from dermedge.data.synthetic import draw
from dermedge.data.twins import Features, features, shared, twins
from dermedge.image.read import write_png


def made(name: str, count: int, prefix: str = "p", lesions: str | None = None) -> DataSet:
    records = tuple(
        Record(
            f"{prefix}{n:03}",
            Path(f"/{name}/{n}.png"),
            label=("mel", "nv")[n % 2],
            lesion_id=f"{lesions}_{n // 2:07}" if lesions else None,
        )
        for n in range(count)
    )
    return DataSet(name, Path(f"/{name}"), records, (), f"licence of {name}")


def part_of(split: Split) -> dict[str, str]:
    return {name: part for part, ids in split.parts.items() for name in ids}


def test_one_set_stays_as_it_is_and_two_are_told_apart():
    one, other = made("csv", 4, lesions="HAM"), made("csv", 4, lesions="mine")
    assert join([one]) is one
    both = join([one, other])
    assert both.name == "csv+csv.2"
    assert both.licence == "licence of csv"
    assert [record.id for record in both.records][3:5] == ["csv/p003", "csv.2/p000"]
    # A public lesion is one over all sets; a set's own numbering is not.
    assert both.records[0].lesion_id == "HAM_0000000"
    assert both.records[4].lesion_id == "csv.2/mine_0000000"
    assert source_of("csv.2/p000", both.name) == "csv.2"
    assert source_of("a/b", "csv") == "csv"
    with pytest.raises(DataError, match="no folder may have"):
        join([one, replace(other, root=Path(f"/a{os.pathsep}b"))])


def test_two_tables_of_one_clinic_are_named():
    mine, public = made("csv", 4, lesions="mine"), made("csv", 4, lesions="HAM")
    people = replace(mine, records=tuple(replace(r, patient_id="P7") for r in mine.records))
    patients, lesions = join([people, people]).notes
    assert patients.startswith("csv and csv.2 name 1 patients alike (such as P7)")
    assert lesions.startswith("csv and csv.2 name 2 lesions alike (such as mine_0000000)")
    zeros = ([replace(r, patient_id=who) for r in mine.records] for who in ("0012", "12"))
    patients, _ = join([replace(mine, records=tuple(records)) for records in zeros]).notes
    assert "name 1 patients alike (such as 0012)" in patients  # a spreadsheet took the zeros
    assert not join([public, public]).notes + join([people, made("folders", 4)]).notes


def test_a_joint_set_is_read_again_by_its_name(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_png(tmp_path / name / "x.png", np.zeros((8, 8, 3), np.uint8))
        (tmp_path / name / "data.csv").write_text("id,image,diagnosis\nx,x.png,nv\n")
    sets = [data.load("csv", tmp_path / name) for name in ("a", "b")]
    both = join(sets)
    assert data.load(both.name, both.root) == both
    with pytest.raises(DataError, match="needs 2 folders"):
        data.load(both.name, tmp_path)


def test_a_frozen_split_stays_and_the_others_follow_their_lesions():
    ham, more = made("ham10000", 60, lesions="HAM"), made("csv", 60, prefix="q")
    frozen = make_split(ham)
    pairs = [(f"csv/q{n:03}", f"ham10000/p{n:03}") for n in range(30)]
    split = joint_split([ham, more], {"ham10000": frozen}, pairs, unreadable=["csv/q059"])
    assert split.data_set == "ham10000+csv"
    places = part_of(split)
    assert split_of_source(split, "ham10000").parts == frozen.parts
    assert all(places[one] == places[other] for one, other in pairs)
    assert "csv/q059" not in places
    own = Counter(places[f"csv/q{n:03}"] for n in range(30, 59))
    assert own["train"] > own["val"] > 0
    assert not split.notes
    # Without any frozen split the first set is dealt out as if it were alone.
    assert split_of_source(joint_split([ham, more], {}, pairs), "ham10000").parts == frozen.parts


def test_what_two_frozen_splits_part_is_tested_and_not_learnt():
    one, other = made("ham10000", 20), made("csv", 20, prefix="q")
    splits = {"ham10000": make_split(one), "csv": make_split(other, seed=3)}
    pairs = [(f"csv/q{n:03}", f"ham10000/p{n:03}") for n in range(20)]
    split = joint_split([one, other], splits, pairs)
    places = part_of(split)
    both = [pair for pair in pairs if pair[0] in places and pair[1] in places]
    assert 0 < len(both) < len(pairs)
    assert all(places[a] == places[b] for a, b in both)
    assert len(split.notes) == len(pairs) - len(both)
    assert "left out" in split.notes[0]
    with pytest.raises(DataError, match="a split of isic2017, which is not among"):
        joint_split([one, other], {"isic2017": splits["csv"]})


def test_a_publishers_test_part_is_not_learnt_from_by_way_of_a_twin():
    ham = made("ham10000", 20)
    more = made("csv", 20, prefix="q")
    more = replace(
        more,
        records=tuple(
            replace(r, official="test" if n < 5 else "train") for n, r in enumerate(more.records)
        ),
    )
    split = joint_split(
        [ham, more], {}, [("csv/q000", "ham10000/p000"), ("csv/q009", "ham10000/p009")]
    )
    places = part_of(split)
    assert places["csv/q000"] == "test"
    assert places.get("ham10000/p000", "test") == "test"
    assert places["csv/q009"] == places["ham10000/p009"]


def test_the_same_name_twice_gets_a_number():
    assert list(keyed([made("csv", 1), made("pad_ufes_20", 1), made("csv", 1)])) == [
        "csv",
        "pad_ufes_20",
        "csv.2",
    ]


# --- twins ---------------------------------------------------------------------------------------


def republished(image: np.ndarray, seed: int) -> np.ndarray:
    """Turned, cropped, of another size and colour."""
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), float(rng.uniform(-40, 40)), 1.2)
    turned = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    cut = turned[height // 10 : -height // 12, width // 9 : -width // 10]
    smaller = cv2.resize(cut, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    return np.clip(smaller * np.array([0.9, 1.05, 1.1]) + 6, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory) -> tuple[DataSet, DataSet]:
    """Twelve drawn lesions, of which the second set shows the first eight, and four others."""
    folder = tmp_path_factory.mktemp("twins")
    sets = []
    for name, seeds in (("ham10000", range(12)), ("milk10k", [*range(8), *range(50, 54)])):
        records = []
        for place, seed in enumerate(seeds):
            image = draw(seed, size=(240, 320)).image
            if name == "milk10k":
                image = republished(image, seed)
            path = folder / f"{name}{place:02}.png"
            write_png(path, image)
            records.append(Record(f"{name[0]}{place:02}", path, label="nv"))
        sets.append(DataSet(name, folder / name, tuple(records), (), "CC0"))
    return sets[0], sets[1]


def test_a_lesion_that_was_cropped_turned_and_recoloured_is_found(two_sets, tmp_path):
    ham, milk = two_sets
    found = twins(milk.records, ham.records, tmp_path)
    assert {(t.one, t.other) for t in found} <= {(f"m{n:02}", f"h{n:02}") for n in range(8)}
    assert len(found) >= 7
    assert min(twin.shared for twin in found) >= 8
    # The second time they are known, whatever has become of the pictures' content.
    (place,) = tmp_path.glob("twins-*.npz")
    assert twins(milk.records, ham.records, tmp_path) == found
    place.write_bytes(b"damaged")
    assert twins(milk.records, ham.records, tmp_path) == found
    # A photograph and a dermoscopic picture are never one.
    close = tuple(replace(record, modality="clinical") for record in milk.records)
    other = tuple(replace(record, modality="dermoscopic") for record in ham.records)
    assert twins(close, other, tmp_path) == []  # nor where they were compared as one kind before
    assert twins([], ham.records) == []


def test_pictures_without_features_are_no_twins(tmp_path):
    flat = features(np.full((50, 60, 3), 128, np.uint8))
    assert len(flat) == 0
    assert shared(flat, flat) == 0
    assert shared(Features(np.zeros((9, 2), np.float32), np.zeros((9, 128), np.uint8)), flat) == 0
    path = tmp_path / "flat.png"
    write_png(path, np.full((50, 60, 3), 128, np.uint8))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    records = [
        Record("a", path),
        Record("b", tmp_path / "broken.png"),
        Record("c", tmp_path / "no"),
    ]
    assert twins(records, records) == []


@pytest.mark.slow
def test_twins_of_ham10000_in_milk10k_are_found(shared_data):
    """On a part: 150 lesions of the list, as many others, against 1,500 pictures of HAM10000."""
    listed = Counter()
    owner: dict[str, set[str]] = {}
    with open(shared_data / "MILK10k" / "ham10000_twins.csv", newline="") as file:
        for row in csv.DictReader(file):
            owner.setdefault(row["lesion_id"], set()).add(row["ham10000_lesion_id"])
    milk = data.load("milk10k", shared_data / "MILK10k")
    ham = data.load("ham10000", shared_data / "HAM10000")
    derm = {r.lesion_id: r for r in milk.records if r.modality == "dermoscopic"}
    chosen = [name for name in sorted(owner) if name in derm][::6][:150]
    others = [name for name in sorted(derm) if name not in owner][::20][:150]
    wanted = set().union(*(owner[name] for name in chosen))
    there = [r for r in ham.records if r.lesion_id in wanted]
    there += [r for r in ham.records if r.lesion_id not in wanted][::6]
    lesion = {record.id: record for record in [*milk.records, *there]}
    pairs = [
        (lesion[t.one], lesion[t.other])
        for t in twins([derm[name] for name in [*chosen, *others]], there)
    ]
    found = {
        one.lesion_id for one, other in pairs if other.lesion_id in owner.get(one.lesion_id, ())
    }
    listed.update(one.lesion_id in owner for one, _ in pairs)
    alike = sum(one.label == other.label for one, other in pairs)
    print(f"{len(found)} of {len(chosen)} found; {alike} of {len(pairs)} pairs of one label")
    assert len(found) >= 0.97 * len(chosen)
    assert alike >= 0.97 * len(pairs)
