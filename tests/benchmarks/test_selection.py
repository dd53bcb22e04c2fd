"""Which pictures are measured, and what is said of those that the bundle was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluations import LABELS, with_split

from benchmarks.accuracy.selection import SEED, select, split_sha256
from benchmarks.schema import tables
from dermedge import UserError
from dermedge.bundle.bundle import Bundle, write_bundle
from dermedge.bundle.manifest import ROLES
from dermedge.data import DataSet, Record, Split, load, make_split
from dermedge.data.fingerprint import of_bytes, of_names, of_pictures
from dermedge.data.leak import FILE, TEST, TRAIN, VAL, TrainingPictures, published

pytestmark = pytest.mark.usefixtures("few_resamples")


def with_list(
    bundle: Bundle, split: Split, prints, folder: Path, listed: int = 0xFF, **facts
) -> Bundle:
    """The bundle as if both networks were trained on `split`; `prints` are by part.

    `listed` : 0xF0, the pictures of the classifier alone.
    """
    use = {"train": TRAIN | TRAIN << 4, "val": VAL | VAL << 4, "test": TEST}
    lists = [
        TrainingPictures(found, np.full(len(found), use[part] & listed, np.uint8), **facts)
        for part, found in prints.items()
    ]
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    training = [
        {"role": role, "data_set": split.data_set, "split_sha256": split.sha256} for role in ROLES
    ]
    manifest = replace(bundle.manifest, training_data=tuple(training))
    path = write_bundle(folder / "list.dermbundle", manifest, {**parts, FILE: published(lists)})
    return Bundle.open(path)


@pytest.fixture(scope="module")
def distinct(tmp_path_factory) -> DataSet:
    """Forty pictures of twenty lesions, no two of which look alike."""
    root = tmp_path_factory.mktemp("distinct")
    rng = np.random.default_rng(1)
    rows = ["image,diagnosis,lesion_id"]
    for number in range(40):
        coarse = rng.integers(60, 230, (8, 8, 3), np.uint8)
        pixels = cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / f"p{number:02}.png"), pixels)
        rows.append(f"p{number:02}.png,{LABELS[number // 2 % 4]},l{number // 2}")
    (root / "data.csv").write_text("\n".join(rows))
    return load("csv", root)


def test_all_pictures_of_two_clinics_are_two_measurements(tiny_bundle, distinct):
    """Both are read as 'csv', and none is parted: in a table the second stood for the first."""
    clinics = [replace(distinct, records=distinct.records[place::2]) for place in range(2)]
    found = [split_sha256(one, select(one, Bundle.open(tiny_bundle), "all")) for one in clinics]
    assert len(set(found)) == 2
    assert "split_sha256" in tables.KEY


def test_warns_where_pictures_or_their_lesions_were_trained_on(tiny_bundle, discs, tmp_path):
    data_set = load("csv", discs)
    bundle = Bundle.open(with_split(tiny_bundle, make_split(data_set), tmp_path))
    assert select(data_set, bundle, "test").warnings == ()
    assert "were in the training part" in select(data_set, bundle, "train").warnings[0]
    ids = sorted(record.id for record in data_set.records)
    # One picture of each lesion trained on, the other one measured.
    leaky = Split("csv", 0, {"train": tuple(ids[::2]), "val": (), "test": tuple(ids[1::2])})
    bundle = Bundle.open(with_split(tiny_bundle, leaky, tmp_path))
    assert select(data_set, bundle, "test").warnings[0].startswith("20 of 20 pictures")
    unknown = select(data_set, Bundle.open(tiny_bundle), "test").warnings
    assert "unknown" in unknown[0]


def test_warns_of_each_network_where_they_had_different_splits(tiny_bundle, discs, tmp_path):
    data_set = load("csv", discs)
    ids = sorted(record.id for record in data_set.records)
    clean = Split("csv", 0, {"train": tuple(ids[:20]), "val": (), "test": tuple(ids[20:])})
    bundle = Bundle.open(with_split(tiny_bundle, clean, tmp_path))
    parts = {name: bundle.part(name) for name in bundle.manifest.parts}
    replace(clean, data_set="isic2017").save(tmp_path / "other.json")
    parts["split-segmenter.json"] = (tmp_path / "other.json").read_bytes()
    both = write_bundle(tmp_path / "both.dermbundle", bundle.manifest, parts)
    selection = select(data_set, Bundle.open(both), "test")
    assert [record.id for record in selection.records] == ids[20:]
    assert len(selection.warnings) == 1
    assert selection.warnings[0].startswith("the segmenter was trained on isic2017")


def test_a_stored_split_serves_only_a_data_set_with_all_of_its_pictures(
    tiny_bundle, discs, tmp_path
):
    data_set = load("csv", discs)
    bundle = Bundle.open(with_split(tiny_bundle, make_split(data_set), tmp_path))
    # Another set read by the same reader: some ids are the same by chance, the others are not.
    records = tuple(
        record if number < 10 else replace(record, id=f"other-{record.id}")
        for number, record in enumerate(data_set.records)
    )
    other = replace(data_set, records=records)
    selection = select(other, bundle, "test")
    assert selection.source == f"made here with seed {SEED}"
    assert "30 pictures of its split are not here" in selection.warnings[0]
    assert "new split, which harms no figure unless another warning" in selection.warnings[1]
    grown = replace(data_set, records=(*data_set.records, records[-1]))
    assert "nothing of 1 pictures" in select(grown, bundle, "test").warnings[0]
    whole = select(other, bundle, "all", baselines=True)
    assert len(whole.records) == 40
    assert len(whole.warnings) == 1
    assert "of 40 pictures have the id" in whole.warnings[0]
    assert whole.train == ()


@pytest.mark.parametrize("seed", [SEED, 5])
def test_the_test_part_is_found_without_any_id_in_the_bundle(tiny_bundle, distinct, tmp_path, seed):
    data_set, tiny = distinct, Bundle.open(tiny_bundle)
    split = make_split(data_set, seed=seed)
    prints = {p: of_bytes(split.select(data_set.records, p)) for p in split.parts}
    bundle = with_list(tiny, split, prints, tmp_path)
    for part in ("train", "val", "test"):
        selection = select(data_set, bundle, part)
        assert [record.id for record in selection.records] == list(split.parts[part])
        assert ("made again" in selection.source) == (seed == SEED)
    assert select(data_set, bundle, "test").warnings == ()
    (warning,) = select(data_set, bundle, "train").warnings
    assert "were in the training part of the bundle" in warning
    assert warning.startswith(f"{len(split.parts['train'])} of {len(split.parts['train'])} pic")
    # A part of the data set is another one: nothing is known of where its pictures belong.
    fewer = replace(data_set, records=data_set.records[:20])
    assert select(fewer, bundle, "test").source == f"made here with seed {SEED}"


def test_overlap_is_found_by_number_whatever_stands_around_it(tiny_bundle, distinct, tmp_path):
    data_set, tiny = distinct, Bundle.open(tiny_bundle)
    names = [f"ISIC_{number:07}" for number in range(40)]
    split = Split("isic2017", 0, {"train": tuple(names[:33]), "val": tuple(names[33:]), "test": ()})
    prints = {part: of_names(ids) for part, ids in split.parts.items()}
    bundle = with_list(tiny, split, prints, tmp_path, unknown=("old-run",))
    ids = [f"ISIC_{number:07}{'_downsampled' if number % 5 else ''}" for number in range(40)]
    pairs = zip(data_set.records, ids, strict=True)
    records = tuple(replace(record, id=name, lesion_id=None) for record, name in pairs)
    warnings = select(replace(data_set, name="isic2019", records=records), bundle, "all").warnings
    assert warnings[0].startswith("33 of 40 pictures, or their lesions or patients, were in the tr")
    assert "(33 by ISIC number)" in warnings[0]
    assert warnings[1].startswith("7 of 40 pictures, or their lesions or patients, were in the val")
    assert "old-run" in warnings[2]
    assert len(warnings) == 3
    # Bundles of the first version had the ids; the same numbers are found in them.
    old = Bundle.open(with_split(tiny_bundle, split, tmp_path))
    found = select(replace(data_set, name="isic2019", records=records), old, "all").warnings
    assert "33 of 40 pictures were in its training part" in found[0]
    # Nothing in common: that is said, and what cannot be known.
    (warning, _) = select(data_set, bundle, "all").warnings
    assert "none of these pictures was found in its training" in warning
    assert "cannot be checked" in warning


def test_a_set_that_was_joined_with_others_is_known(tiny_bundle, distinct, tmp_path):
    data_set, tiny = distinct, Bundle.open(tiny_bundle)
    split = make_split(data_set)
    split.save(tmp_path / "own.json")
    prints = {p: of_bytes(split.select(data_set.records, p)) for p in split.parts}
    for joint, known in (("isic2017+csv", True), ("csv.2+isic2017", True), ("ph2+isic2017", False)):
        bundle = with_list(tiny, replace(split, data_set=joint), prints, tmp_path)
        warnings = select(data_set, bundle, "test", tmp_path / "own.json").warnings
        assert any("not on csv" in warning for warning in warnings) != known


def test_a_network_of_which_nothing_is_listed_is_named(tiny_bundle, distinct, tmp_path):
    split = make_split(distinct)
    prints = {p: of_bytes(split.select(distinct.records, p)) for p in split.parts}
    bundle = with_list(Bundle.open(tiny_bundle), split, prints, tmp_path, listed=0xF0)
    (warning,) = select(distinct, bundle, "test").warnings
    assert "does not list what its segmenter learnt from" in warning


@pytest.mark.parametrize("drawn", [0, 3])
def test_a_picture_without_an_outline_tuned_no_segmenter(tiny_bundle, distinct, tmp_path, drawn):
    """A set without any was in the split alone, and "thresholds were chosen on them" stood there
    of the segmenter, too."""
    split = make_split(distinct)
    val = set(split.parts["val"][:drawn])
    records = tuple(
        replace(one, lesion_id=None, mask=one.image if one.id in val else None)
        for one in distinct.records
    )
    data_set = replace(distinct, records=records)
    prints = {p: of_bytes(split.select(records, p)) for p in split.parts}
    tiny = Bundle.open(tiny_bundle)
    # What tells two networks apart: the classifier learnt from a picture more.
    also = TrainingPictures(prints["test"][np.arange(1)], np.full(1, TRAIN << 4, np.uint8))
    path = with_list(tiny, split, prints, tmp_path).path
    listed = TrainingPictures.from_bytes(Bundle.open(path).part(FILE))
    parts = {name: tiny.part(name) for name in tiny.manifest.parts}
    manifest = Bundle.open(path).manifest
    parts[FILE] = published([listed, also])
    bundle = Bundle.open(write_bundle(tmp_path / "more.dermbundle", manifest, parts))
    warnings = select(data_set, bundle, "val").warnings
    assert any("validation part of the classifier" in text for text in warnings)
    own = [text for text in warnings if "segmenter" in text]
    assert [text.split(",")[0] for text in own] == ["3 of 3 pictures with an outline"] * bool(drawn)


def test_turned_copies_under_other_names_are_found(tiny_bundle, tmp_path):
    rng = np.random.default_rng(0)
    rows = ["image,diagnosis"]
    (tmp_path / "turned").mkdir()
    learnt = []
    for number in range(6):
        coarse = rng.integers(60, 230, (8, 8, 3), np.uint8)
        pixels = cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
        cv2.imwrite(str(tmp_path / "turned" / f"x{number}.jpg"), cv2.rotate(pixels, number % 3))
        learnt.append(Record(f"{number}", tmp_path / f"{number}.png"))
        rows.append(f"x{number}.jpg,nv")
    (tmp_path / "turned" / "data.csv").write_text("\n".join(rows))
    split = Split("med_node", 0, {"train": tuple("0123"), "val": (), "test": ()})
    prints = {"train": of_pictures(learnt[:4])[0]}
    bundle = with_list(Bundle.open(tiny_bundle), split, prints, tmp_path)
    (warning,) = select(load("csv", tmp_path / "turned"), bundle, "all").warnings
    assert warning.startswith("4 of 6 pictures")
    assert "(4 by their look)" in warning


def test_a_damaged_list_of_training_pictures_is_one_line(tiny_bundle, discs, tmp_path):
    tiny = Bundle.open(tiny_bundle)
    parts = {name: tiny.part(name) for name in tiny.manifest.parts}
    path = write_bundle(tmp_path / "x.dermbundle", tiny.manifest, {**parts, FILE: b"nothing"})
    with pytest.raises(UserError, match=r"training\.npz .*is damaged"):
        select(load("csv", discs), Bundle.open(path), "all")


def test_pictures_for_the_baselines_are_chosen_only_where_asked_for(tiny_bundle, discs, tmp_path):
    data_set, bundle = load("csv", discs), Bundle.open(tiny_bundle)
    ids = sorted(record.id for record in data_set.records)
    Split("csv", 0, {"train": ("gone", *ids[:20]), "val": (), "test": tuple(ids[20:])}).save(
        tmp_path / "split.json"
    )
    selection = select(data_set, bundle, "test", tmp_path / "split.json")
    assert (len(selection.records), selection.train) == (20, ())
    assert select(data_set, bundle, "test", baselines=True).train


def test_a_file_that_parts_what_is_all_measured_is_refused(tiny_bundle, discs, tmp_path):
    """Pictures that it does not name were measured, too, and the result said "none"."""
    data_set, file = load("csv", discs), tmp_path / "split.json"
    make_split(data_set).save(file)
    assert select(data_set, Bundle.open(tiny_bundle), "val", file).source == "the file split.json"
    with pytest.raises(UserError, match="leave one of the two out"):
        select(data_set, Bundle.open(tiny_bundle), "all", file)


def test_an_empty_part_is_refused_with_the_parts_that_have_pictures(tiny_bundle, discs):
    data_set = load("csv", discs)
    records = tuple(replace(record, official="train") for record in data_set.records)
    with pytest.raises(UserError, match=r"'test' of csv is empty; .*train \(\d+\).*all \(40\)"):
        select(replace(data_set, records=records), Bundle.open(tiny_bundle), "test")


def test_a_limit_gives_the_same_pictures_whatever_the_order(tiny_bundle, discs):
    data_set = load("csv", discs)
    bundle = Bundle.open(tiny_bundle)
    selection = select(data_set, bundle, "all", limit=9)
    turned = replace(data_set, records=data_set.records[::-1])
    assert [r.id for r in select(turned, bundle, "all", limit=9).records] == [
        r.id for r in selection.records
    ]
    assert (len(selection.records), selection.pictures, selection.limit) == (9, 40, 9)
