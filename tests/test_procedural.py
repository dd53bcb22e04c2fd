"""The drawn pictures are what their labels say, and the data set on disk can be trusted."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermedge import UserError
from dermedge.data.synthetic import ARTEFACTS, LOOKS, draw, skin_type, write_data_set

SMALL = (96, 128)


def files_of(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def fold_mismatch(mask: np.ndarray) -> float:
    """Share of the lesion that a half turn about its middle does not cover."""
    rows, columns = np.nonzero(mask)
    y, x = rows.mean(), columns.mean()
    turn = np.array([[-1, 0, 2 * x], [0, -1, 2 * y]])
    turned = cv2.warpAffine(mask.astype(np.uint8), turn, mask.shape[::-1]) > 0
    return np.count_nonzero(mask ^ turned) / np.count_nonzero(mask)


def raggedness(mask: np.ndarray) -> float:
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    return cv2.arcLength(outline, True) ** 2 / (4 * np.pi * cv2.contourArea(outline))


@given(
    st.integers(0, 10**9),
    st.sampled_from(["dermoscopy", "phone"]),
    st.sampled_from([None, *LOOKS]),
    st.tuples(st.integers(64, 200), st.integers(64, 200)),
)
@settings(max_examples=40)
def test_same_seed_same_picture(seed, style, label, size):
    first, second = (draw(seed, style, size, label) for _ in range(2))
    assert first.image.dtype == np.uint8
    assert first.image.shape == (*size, 3)
    assert first.mask.dtype == bool
    assert first.mask.shape == size
    assert first.mask.any()
    assert not first.mask.all()
    assert label in (None, first.label)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.mask, second.mask)


@pytest.mark.parametrize("ita", [-50, -30, 0, 20, 35, 50, 70])
@pytest.mark.parametrize("style", ["dermoscopy", "phone"])
def test_bare_skin_has_the_asked_tone(ita, style):
    sample = draw(11, style, (192, 256), "nv", ita=ita, artefacts=())
    near = cv2.dilate(sample.mask.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
    lab = cv2.cvtColor(sample.image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    light, _, yellow = lab[~near].mean(axis=0)
    assert np.degrees(np.arctan2(light - 50, yellow)) == pytest.approx(ita, abs=3)


def test_a_control_changes_nothing_but_itself():
    first = draw(4, size=SMALL, label="mel")
    darker = draw(4, size=SMALL, label="mel", ita=-20)
    np.testing.assert_array_equal(first.mask, darker.mask)
    assert darker.ita == -20
    assert darker.artefacts == first.artefacts
    assert darker.image.mean() < first.image.mean()


@pytest.mark.parametrize("seed", range(5))
def test_diameter_is_true_to_scale(seed):
    sample = draw(seed, size=(384, 512), diameter_mm=6.0)
    outline, _ = cv2.findContours(
        sample.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    points = cv2.convexHull(np.vstack(outline))[:, 0].astype(float)
    extent = np.linalg.norm(points[:, None] - points[None], axis=2).max() + 1
    assert extent / sample.px_per_mm == pytest.approx(6.0, rel=0.03)


def test_asymmetry_and_border_are_in_the_mask():
    seeds = range(8)
    even = [fold_mismatch(draw(s, asymmetry=0.0, border_irregularity=0.1).mask) for s in seeds]
    bent = [fold_mismatch(draw(s, asymmetry=1.0, border_irregularity=0.1).mask) for s in seeds]
    assert max(even) < np.median(bent)
    smooth = [raggedness(draw(s, asymmetry=0.2, border_irregularity=0.0).mask) for s in seeds]
    ragged = [raggedness(draw(s, asymmetry=0.2, border_irregularity=1.0).mask) for s in seeds]
    assert max(smooth) < min(ragged)


def test_more_colours_spread_wider():
    def spread(seed, colors):
        sample = draw(seed, label="nv", colors=colors, artefacts=())
        lab = cv2.cvtColor(sample.image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        return lab[sample.mask].std(axis=0).sum()

    one, six = ([spread(seed, colors) for seed in range(8)] for colors in (1, 6))
    assert np.mean(six) > 1.2 * np.mean(one)


def test_a_lesion_differs_from_its_skin():
    for number, label in enumerate(LOOKS):
        sample = draw(100 + number, label=label, ita=40, artefacts=())
        lab = cv2.cvtColor(sample.image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        apart = np.linalg.norm(lab[sample.mask].mean(axis=0) - lab[~sample.mask].mean(axis=0))
        assert apart > 3, label


@pytest.mark.parametrize("name", list(ARTEFACTS))
def test_each_artefact_can_be_seen(name):
    style = "phone" if ARTEFACTS[name][1] else "dermoscopy"
    clean = draw(8, style, SMALL, artefacts=())
    marked = draw(8, style, SMALL, artefacts=(name,))
    assert marked.artefacts == (name,)
    assert (clean.image != marked.image).any()
    np.testing.assert_array_equal(clean.mask, marked.mask)


def test_another_view_shows_the_same_lesion():
    first, second = draw(6, size=SMALL), draw(6, size=SMALL, view=1)
    assert (first.image != second.image).any()
    for name in ("label", "ita", "asymmetry", "border_irregularity", "colors", "diameter_mm"):
        assert getattr(first, name) == getattr(second, name)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"ita": 80}, "ita must be -50 to 70"),
        ({"asymmetry": -0.1}, "asymmetry must be 0 to 1"),
        ({"border_irregularity": float("nan")}, "border_irregularity must be 0 to 1"),
        ({"colors": 2.5}, "colors must be a whole number"),
        ({"colors": 7}, "colors must be 1 to 6"),
        ({"diameter_mm": 0}, "diameter_mm must be 1 to 40"),
        ({"style": "painting"}, "style must be one of"),
        ({"label": "other"}, "label must be one of"),
        ({"size": (10, 512)}, "size must be"),
        ({"artefacts": ("snow",)}, "no artefact 'snow'"),
        ({"view": -1}, "view must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_wrong_controls_are_told_in_one_line(wrong, told):
    with pytest.raises(ValueError, match=told) as caught:
        draw(**{"seed": 0, **wrong})
    assert "\n" not in str(caught.value)


def test_skin_types_follow_the_tone():
    assert [skin_type(ita) for ita in (60, 50, 35, 20, 0, -40)] == [1, 2, 3, 4, 5, 6]


def test_data_set_is_whole_and_readable(tmp_path):
    from dermedge.data import load

    root = tmp_path / "drawn"
    write_data_set(root, 60, seed=3, styles=("dermoscopy", "phone"), size=SMALL)
    with (root / "data.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["id"] for row in rows}) == 60
    assert {row["diagnosis"] for row in rows} == set(LOOKS)
    assert len({row["lesion_id"] for row in rows}) < 60
    assert len({row["patient_id"] for row in rows}) < len({row["lesion_id"] for row in rows})
    for key in ("age", "sex", "skin_type"):
        assert len({(row["patient_id"], row[key]) for row in rows}) == len(
            {row["patient_id"] for row in rows}
        )
    data_set = load("procedural", root)
    assert len(data_set.records) == 60
    assert not data_set.problems
    assert data_set.procedural
    for record in data_set.records[:5]:
        image, mask = cv2.imread(str(record.image)), cv2.imread(str(record.mask), 0)
        assert image.shape == (*SMALL, 3)
        assert set(np.unique(mask)) == {0, 255}
    assert json.loads((root / "procedural.json").read_text())["procedural"] is True


def test_a_stopped_run_goes_on(tmp_path):
    write_data_set(tmp_path / "whole", 12, size=SMALL)
    whole = files_of(tmp_path / "whole")
    write_data_set(tmp_path / "stopped", 12, size=SMALL)
    for name in ("data.csv", "masks/drawn_00005.png", "images/drawn_00009.jpg"):
        (tmp_path / "stopped" / name).unlink()
    kept = tmp_path / "stopped" / "images" / "drawn_00001.jpg"
    before = kept.stat().st_mtime_ns
    write_data_set(tmp_path / "stopped", 12, size=SMALL)
    assert kept.stat().st_mtime_ns == before
    assert files_of(tmp_path / "stopped") == whole


def test_other_settings_and_foreign_folders_are_refused(tmp_path):
    write_data_set(tmp_path / "drawn", 8, size=SMALL)
    before = files_of(tmp_path / "drawn")
    with pytest.raises(UserError, match="other settings") as caught:
        write_data_set(tmp_path / "drawn", 9, size=SMALL)
    assert "\n" not in str(caught.value)
    assert files_of(tmp_path / "drawn") == before
    (tmp_path / "looked-at").mkdir()
    for name in (".DS_Store", "desktop.ini", "._data.csv", ".writing-0"):
        (tmp_path / "looked-at" / name).write_bytes(b"nobody's")
    write_data_set(tmp_path / "looked-at", 1, size=SMALL)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="is not empty"):
        write_data_set(tmp_path / "foreign", 8, size=SMALL)
    with pytest.raises(ValueError, match="count"):
        write_data_set(tmp_path / "none", 0)
