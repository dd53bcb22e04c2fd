"""One leak check: what is one picture, whatever its name, view, size or format."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermedge import cli
from dermedge.data import DataError, DataSet, Record, Split, load, make_split
from dermedge.data import fingerprint as prints
from dermedge.data.joint import joint_split
from dermedge.data.leak import (
    EARLIER,
    TEST,
    TRAIN,
    VAL,
    TrainingPictures,
    duplicates,
    leaks,
    overlap,
    published,
    split_apart,
    together,
    torn,
)


def skin(seed: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """A drawn lesion on mottled skin, uint8 (H, W, 3) RGB."""
    rng = np.random.default_rng(seed)
    height, width = size
    coarse = rng.integers(120, 240, (7, 9, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    mask = np.zeros(size, np.float32)
    centre = (
        int(rng.integers(width // 4, 3 * width // 4)),
        int(rng.integers(height // 3, height // 2)),
    )
    axes = int(rng.integers(12, 34)), int(rng.integers(10, 24))
    cv2.ellipse(mask, centre, axes, int(rng.integers(0, 180)), 0, 360, 1, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), 2)[..., None]
    image = image * (1 - mask) + mask * rng.integers(30, 110, 3)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def views(image: np.ndarray) -> list[np.ndarray]:
    turned = (image, image.swapaxes(0, 1))
    return [np.ascontiguousarray(v) for t in turned for f in (t, t[::-1]) for v in (f, f[:, ::-1])]


CHANGES = {
    "as it is": lambda image: image,
    "JPEG 40": lambda image: jpeg(image, 40),
    "half": lambda image: cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "twice": lambda image: jpeg(cv2.resize(image, None, fx=2, fy=2), 85),
    "square": lambda image: jpeg(cv2.resize(image, (80, 80), interpolation=cv2.INTER_AREA), 85),
    "darker": lambda image: (image * 0.8).astype(np.uint8),
    "warmer": lambda image: np.clip(image * [1.08, 1, 0.92], 0, 255).astype(np.uint8),
    "gamma": lambda image: (255 * (image / 255) ** 1.25).astype(np.uint8),
}


def looks(images) -> np.ndarray:
    return np.array([prints.look(image) for image in images])


@pytest.mark.parametrize("name", CHANGES)
def test_a_look_stands_all_eight_views_and_what_else_is_done_to_copies(name):
    originals = [skin(seed) for seed in range(12)]
    for view in range(8):
        copies = [CHANGES[name](views(image)[view]) for image in originals]
        pairs = list(prints.alike(looks(originals), looks(copies)))
        assert pairs == [(number, number) for number in range(12)], view


def test_other_pictures_do_not_look_alike():
    assert list(prints.alike(looks(skin(seed) for seed in range(120)))) == []


def test_pictures_without_contrast_look_like_nothing():
    blank = [np.full((40, 50, 3), value, np.uint8) for value in (0, 128, 255)]
    assert not looks(blank).any()
    assert list(prints.alike(looks(blank))) == []


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("ISIC_0000001", 1),
        ("ISIC_0000001_downsampled", 1),
        ("train/ISIC_0024306", 24306),
        ("isic_0024306.JPG", 24306),
        ("ISIC_0000001_segmentation", 1),
        ("ISIC_0012345_superpixels.png", 12345),
        ("IL_0000652/ISIC_4671410", 4671410),
        ("ISIC_0000000", 0),
        ("ISIC_12", None),  # somebody else's number, not to be published as the archive's
        ("CLASSIC_0024306", None),
        ("ISIC_00243061", None),
        ("PAT_1066_281_99", None),
        ("", None),
    ],
)
def test_the_number_in_the_archive_is_read_out_of_any_name(name, number):
    assert prints.isic_number(name) == number


def test_only_public_lesion_ids_are_numbers():
    assert prints.lesion_number("HAM_0000118") == prints.lesion_number("ham_0000118") > 0
    public = ["HAM_0000118", "BCN_0000118", "IL_0000118", "MSK4_0000118", "MSK_0000118"]
    assert len({prints.lesion_number(name) for name in public}) == len(public)
    assert {prints.lesion_number(name) for name in ("L1", "PAT_1/2", "HAM_1", "", None)} == {0}


def written(folder: Path, name: str, image: np.ndarray, **facts) -> Record:
    path = folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
    return Record(id=name, image=path, **facts)


def test_pictures_are_one_by_number_bytes_lesion_or_look(tmp_path):
    learnt = [
        written(tmp_path / "one", "ISIC_0000007", skin(1)),
        written(tmp_path / "one", "b", skin(2)),
        written(tmp_path / "one", "c", skin(3), lesion_id="HAM_0000118"),
        written(tmp_path / "one", "d", skin(4), lesion_id="L1"),
    ]
    measured = [
        written(tmp_path / "two", "x/ISIC_0000007_downsampled", skin(11)),
        written(tmp_path / "two", "f", skin(2)),
        written(tmp_path / "two", "g", skin(12), lesion_id="HAM_0000118"),
        written(tmp_path / "two", "h", views(skin(4))[6]),
        written(tmp_path / "two", "i", skin(13), lesion_id="L1"),
    ]
    found = [prints.of_pictures(records)[0] for records in (measured, learnt)]
    assert overlap(*found).tolist() == [1, 2, 3, 4, 0]


def test_what_cannot_be_read_is_named_and_looks_are_kept_privately(tmp_path, monkeypatch):
    records = [written(tmp_path, "a", skin(1)), written(tmp_path, "b", skin(2))]
    (tmp_path / "c.png").write_bytes(b"no picture")
    records += [Record("c", tmp_path / "c.png"), Record("gone", tmp_path / "gone.png")]
    drawn = np.zeros((96, 128, 3), np.uint8)
    drawn[30:60, 40:80] = 255
    records.append(written(tmp_path, "mask", drawn))
    first, errors = prints.of_pictures(records, tmp_path / "kept")
    assert errors.keys() == {"c", "gone", "mask"}
    assert (first.looks[:2].any(), first.looks[2:].any()) == (True, False)
    (file,) = (tmp_path / "kept").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    decoded = []
    monkeypatch.setattr(prints, "look", lambda pixels: decoded.append(1) or np.zeros(64, np.uint8))
    again, _ = prints.of_pictures(records, tmp_path / "kept")
    assert np.array_equal(first.looks, again.looks)
    assert not decoded
    # Keyed on the bytes: another picture of the same name and time is looked at.
    cv2.imwrite(str(tmp_path / "a.png"), skin(5))
    prints.of_pictures(records, tmp_path / "kept")
    assert len(decoded) == 1
    file.write_bytes(b"damaged")
    prints.of_pictures(records, tmp_path / "kept")
    assert len(decoded) == 3


# --- splits --------------------------------------------------------------------------------


def copies(root: Path, count: int = 10) -> None:
    """Lesions without ids, each as it is, flipped and turned, saved as JPEG."""
    root.mkdir(exist_ok=True)
    rows = ["image,diagnosis"]
    for number in range(count):
        kinds = dict(
            zip(
                ("", "_h", "_v", "_r90"),
                (views(skin(number))[k] for k in (0, 1, 2, 5)),
                strict=True,
            )
        )
        for kind, image in kinds.items():
            cv2.imwrite(str(root / f"L{number}{kind}.jpg"), image[..., ::-1])
            rows.append(f"L{number}{kind}.jpg,nevus")
    (root / "data.csv").write_text("\n".join(rows))


def test_data_check_names_turned_copies_and_keeps_them_together(tmp_path, capsys):
    copies(tmp_path / "data")
    file = tmp_path / "s.json"
    assert cli.main(["data", "check", f"csv={tmp_path / 'data'}", "--split", str(file)]) == 0
    assert "kept in one part: 60" in capsys.readouterr().out  # 6 pairs of 4 copies, ten times
    parts = Split.load(file).parts
    assert all(parts.values())
    for ids in parts.values():
        lesions = {name.partition("_")[0] for name in ids}
        assert len(ids) == 4 * len(lesions)


def plain_set(count: int) -> DataSet:
    records = [Record(f"r{n:02}", Path(f"r{n:02}.png"), label="nv") for n in range(count)]
    return DataSet("csv", Path("."), tuple(records), (), "CC0")


def test_a_split_changes_only_where_it_would_part_copies():
    data_set = plain_set(40)
    plain = make_split(data_set)
    inside = plain.parts["train"][:2]
    assert split_apart(data_set, [inside]).sha256 == plain.sha256
    across = plain.parts["train"][0], plain.parts["test"][0]
    assert torn(plain, [inside, across]) == [across]
    assert torn(split_apart(data_set, [inside, across]), [inside, across]) == []


def test_unreadable_pictures_are_in_no_part():
    split = split_apart(plain_set(20), [("r01", "r02"), ("r03", "r04")], ["r01"])
    named = [name for ids in split.parts.values() for name in ids]
    assert sorted(named) == sorted({f"r{n:02}" for n in range(20)} - {"r01"})


def test_pictures_that_an_unreadable_one_links_stay_together():
    plain = make_split(plain_set(40))
    one, other = plain.parts["train"][0], plain.parts["test"][0]
    link = next(name for name in plain.parts["val"])
    chain = [(one, link), (link, other)]
    assert torn(split_apart(plain_set(40), chain, [link]), [(one, other)]) == []
    assert torn(split_apart(plain_set(40), [], [link], same=chain), [(one, other)]) == []
    # The only one that says that the lesion of one picture is the person of another.
    facts = {
        one: {"lesion_id": "L"},
        link: {"lesion_id": "L", "patient_id": "P"},
        other: {"patient_id": "P"},
    }
    records = tuple(replace(r, **facts.get(r.id, {})) for r in plain_set(40).records)
    stated = replace(plain_set(40), records=records)
    assert torn(split_apart(stated, [], [link]), [(one, other)]) == []
    both = [stated, replace(plain_set(3), name="folders")]
    joint = joint_split(both, {}, [], [f"csv/{link}"])
    assert torn(joint, [(f"csv/{one}", f"csv/{other}")]) == []
    assert not joint.notes


# --- training.npz --------------------------------------------------------------------------


def some(count: int, start: int = 0, archive: bool = True) -> prints.Fingerprints:
    names = [f"ISIC_{n:07}" if archive else f"p{n}" for n in range(start, start + count)]
    found = prints.of_names(names)
    if archive:
        return found
    rng = np.random.default_rng(start)
    return replace(
        found,
        files=rng.integers(1, 2**63, count, dtype=np.uint64),
        looks=rng.integers(0, 256, (count, prints.LOOK_BYTES), dtype=np.uint8),
    )


def listed(found: prints.Fingerprints, use: int, **facts) -> TrainingPictures:
    return TrainingPictures(found, np.full(len(found), use, np.uint8), **facts)


def test_a_bundle_lists_train_and_val_once_and_never_the_test_part():
    one = together([listed(some(5), TRAIN), listed(some(3, 5), VAL), listed(some(2, 8), TEST)])
    other = listed(some(5), TRAIN << 4, unknown=("old-run",))
    own = listed(some(4, 100, archive=False), EARLIER << 4)
    found = TrainingPictures.from_bytes(published([one, other, own]))
    assert len(found.prints) == 12
    assert found.roles() == ("segmenter", "classifier")
    assert len(found.of("segmenter", TRAIN)) == len(found.of("classifier", TRAIN)) == 5
    assert len(found.of("classifier", EARLIER)) == 4
    assert len(found.of("segmenter", TEST)) == 0
    assert found.unknown == ("old-run",)
    assert published([own, other, one]) == published([one, other, own])


def test_names_of_files_are_nowhere_in_the_list(tmp_path):
    records = [written(tmp_path, f"patient-{n}", skin(n), lesion_id=f"case{n}") for n in range(3)]
    content = published([listed(prints.of_pictures(records)[0], TRAIN)])
    with np.load(io.BytesIO(content)) as arrays:
        everything = b"".join(arrays[name].tobytes() for name in arrays)
    assert b"patient" not in everything
    assert not TrainingPictures.from_bytes(content).prints.lesions.any()


def test_leaks_are_certain_but_for_the_look():
    known = listed(some(5), TRAIN)
    clean = {"val": some(2, 50), "test": some(2, 60)}
    names = {"val": ["v0", "v1"], "test": ["t0", "t1"]}
    assert leaks(known, clean, names) is None
    leak = leaks(known, {**clean, "test": some(2, 4)}, names)
    assert leak.certain
    assert leak.line == "1 of 2 test pictures (1 by ISIC number; first: t0)"
    # What a network was tuned on may be tuned on again, but not tested on.
    tuned = listed(some(5), VAL)
    assert leaks(tuned, {"val": some(2, 4)}, names) is None
    assert leaks(tuned, {"test": some(2, 4)}, names).certain
    shown = replace(some(2, 70), looks=looks([skin(1), skin(2)]))
    copied = replace(some(2, 80), looks=looks([views(skin(1))[3], skin(9)]))
    leak = leaks(listed(shown, TRAIN), {"val": copied}, names)
    assert (leak.certain, leak.line) == (
        False,
        "1 of 2 validation pictures (1 by their look; first: v0)",
    )


def test_a_list_that_promises_more_than_it_holds_is_refused():
    good = listed(some(4), TRAIN).to_bytes()
    with np.load(io.BytesIO(good)) as arrays:
        content = dict(arrays)
    for name, value in (
        ("use", np.zeros(3, np.uint8)),
        ("numbers", np.zeros(4, np.int64)),
        ("looks", np.zeros((4, 8), np.uint8)),
        ("split", np.zeros(31, np.uint8)),
        ("unknown", np.array(["x"] * 65)),
        ("numbers", np.array([None] * 4)),
    ):
        buffer = io.BytesIO()
        np.savez(buffer, **{**content, name: value})
        with pytest.raises(DataError, match="damaged"):
            TrainingPictures.from_bytes(buffer.getvalue())
    # A header of a terabyte before four numbers: refused before any memory is asked for.
    buffer = io.BytesIO()
    np.savez(buffer, **content)
    huge = buffer.getvalue().replace(b"(4, 64), }    ", b"(4000000, 64)}")
    assert huge != buffer.getvalue()
    with pytest.raises(DataError, match="damaged"):
        TrainingPictures.from_bytes(huge)


@settings(max_examples=150)
@given(st.data())
def test_any_damage_to_a_list_is_refused_or_harmless(data):
    content = bytearray(listed(some(6, 3, archive=False), TRAIN).to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = TrainingPictures.from_bytes(bytes(content))
    except DataError:
        return
    overlap(some(6, 3), found.prints)


# --- real pictures -------------------------------------------------------------------------


def test_the_split_of_ham10000_stays_what_it_was(shared_data):
    if not (shared_data / "HAM10000").is_dir():
        pytest.skip(f"HAM10000 is not in {shared_data}")
    data_set = load("ham10000", shared_data / "HAM10000")
    assert make_split(data_set).sha256.startswith("d886993bffd6")
    # The only near-duplicate of two lesions lies in one part of it.
    pair = ("ISIC_0025226", "ISIC_0030074")
    assert split_apart(data_set, [pair]).sha256.startswith("d886993bffd6")


def test_near_duplicates_of_isic2017_are_found(shared_data):
    if not (shared_data / "ISIC2017").is_dir():
        pytest.skip(f"ISIC2017 is not in {shared_data}")
    records = load("isic2017", shared_data / "ISIC2017").records
    wanted = {"ISIC_0000171", "ISIC_0015124", "ISIC_0012127", "ISIC_0012970", "ISIC_0012290"}
    wanted |= {"ISIC_0013594"}
    chosen = [r for r in records if r.id in wanted] + list(records[:80])
    chosen = list({r.id: r for r in chosen}.values())
    found = duplicates(chosen, prints.of_pictures(chosen)[0])
    assert {
        ("ISIC_0000171", "ISIC_0015124"),
        ("ISIC_0012127", "ISIC_0012970"),
        ("ISIC_0012290", "ISIC_0013594"),
    } <= set(found)
