"""Two captures of one lesion: laid onto each other, and what changed between them."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import replace

import cv2
import numpy as np
import pytest

from dermedge import UserError
from dermedge.data.synthetic import draw
from dermedge.image.read import read_image, read_mask
from dermedge.lesion.features import measure

pytest.importorskip("cryptography", reason="the store's capture needs it")
from edge_app.follow_up.history import compare, history
from edge_app.i18n import language
from edge_app.presentation import comparison
from edge_app.store.records import OtherAnalysis, StoreError
from edge_app.store.store import Capture


def capture(pixels, mask, px_per_mm=None, taken="2026-01-01T12:00:00Z") -> Capture:
    """As the app stores it, with the mask for the segmenter's answer."""
    found = measure(mask, pixels, px_per_mm=px_per_mm)
    analysis = {
        "triage": "low",
        "malignancy": 0.1,
        "lesion": {
            "found": found.found,
            "box": list(found.box) if found.box else None,
            "polygons": [polygon.tolist() for polygon in found.polygons],
            "area_px": found.area_px,
        },
        "abcd": {
            "diameter_mm": found.diameter_mm,
            "color": found.color,
            "asymmetry_index": found.asymmetry_index,
            "border_irregularity": found.border_irregularity,
        },
    }
    return Capture("", "", taken, analysis, mask.shape[::-1], px_per_mm)


def seen_again(pixels, mask, angle: float, size: float, light: float = 1.0):
    """The picture turned about the lesion (degrees) and enlarged; also the transform (2, 3)."""
    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    centre = float(xs.mean()), float(ys.mean())
    matrix = cv2.getRotationMatrix2D(centre, angle, size)
    matrix[:, 2] += np.array([width / 2, height / 2]) - centre
    other = cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
    other = np.clip(other * light, 0, 255).astype(np.uint8)
    return other, cv2.warpAffine(mask.astype(np.uint8), matrix, (width, height)) > 0, matrix


def misplaced(found, matrix: np.ndarray, mask: np.ndarray) -> float:
    """How far the lesion's points come to lie from where they belong, share of its radius."""
    points = np.argwhere(mask)[:, ::-1].astype(float)
    there = points @ matrix[:, :2].T + matrix[:, 2]
    back = there @ found.transform[:, :2].T + found.transform[:, 2]
    return np.linalg.norm(back - points, axis=1).mean() / np.sqrt(mask.sum() / np.pi)


@pytest.mark.parametrize("angle", [0, 35, 90, 180, -140])
@pytest.mark.parametrize("seed", [1, 4])
def test_a_known_turn_and_enlargement_is_found(seed, angle):
    sample = draw(seed, asymmetry=0.6)
    other, mask, matrix = seen_again(sample.image, sample.mask, angle, 0.9, light=0.9)
    first = capture(sample.image, sample.mask, 10.0)
    second = capture(other, mask, 9.0)
    found = compare(first, sample.image, second, other)
    assert found.by == "scale"
    assert misplaced(found, matrix, sample.mask) < 0.05
    assert found.overlap > 0.95
    assert abs(found.area_change) < 0.02
    assert found.area_mm2[1] == pytest.approx(found.area_mm2[0], rel=0.02)
    assert found.warped.shape == sample.image.shape
    inside = sample.mask & found.covered
    apart = np.abs(found.warped[inside].astype(float) - 0.9 * sample.image[inside])
    assert apart.mean() < 6


def test_opencv_4_takes_the_mask_of_a_lesion(monkeypatch):
    """It refuses an array of bool, which OpenCV 5 takes."""
    moments = cv2.moments

    def of_opencv_4(array, **options):
        assert array.dtype != bool
        return moments(array, **options)

    monkeypatch.setattr(cv2, "moments", of_opencv_4)
    drawn = draw(3, label="nv", size=(120, 160))
    shot = capture(drawn.image, drawn.mask)
    assert compare(shot, drawn.image, shot, drawn.image).overlap > 0.99


def test_growth_is_told_in_square_millimetres_or_said_to_be_unknown():
    size = (256, 320)
    looks = {"artefacts": (), "size": size, "label": "nv"}
    small, large = (draw(3, diameter_mm=mm, **looks) for mm in (6.0, 9.0))
    captures = [capture(s.image, s.mask, s.px_per_mm) for s in (small, large)]
    found = compare(captures[0], small.image, captures[1], large.image)
    true = [sample.mask.sum() / sample.px_per_mm**2 for sample in (small, large)]
    assert found.area_mm2 == pytest.approx(true, rel=0.03)
    assert found.area_change == pytest.approx(true[1] / true[0] - 1, rel=0.06)
    assert "size_unknown" not in found.remarks
    captures = [capture(s.image, s.mask) for s in (small, large)]
    found = compare(captures[0], small.image, captures[1], large.image)
    assert found.by == "outline"
    assert found.area_change is None
    assert found.area_mm2 == (None, None)
    assert "size_unknown" in found.remarks


@pytest.mark.parametrize("which", [0, 1])
def test_a_picture_that_was_refused_shows_no_growth(which):
    sample = draw(3, size=(256, 320), artefacts=())
    whole = capture(sample.image, sample.mask, 10.0)
    refused = replace(whole, analysis={**whole.analysis, "triage": "retake"})
    pair = (refused, whole) if which else (whole, refused)
    found = compare(pair[0], sample.image, pair[1], sample.image)
    assert found.remarks[0] == "refused"
    assert (found.area_change, found.area_mm2[1 - which]) == (None, None)
    said = dict(comparison.changes(found))
    assert said["Area"] == "unknown: one of the pictures cannot be judged"
    assert not {"Asymmetry (0 to 1)", "Border (0 to 1)"} & set(said)
    assert comparison.shown(refused).size == "size unknown"
    same = dict(comparison.changes(compare(whole, sample.image, whole, sample.image)))
    assert same["Area"].endswith("(0%)")


def test_a_picture_that_the_clock_misdated_is_told():
    sample = draw(3, size=(256, 320), artefacts=())
    first = capture(sample.image, sample.mask)
    doubtful = replace(first, dating="clock wrong", taken="1970-01-01T00:05:00Z")
    assert "clock" in compare(first, sample.image, doubtful, sample.image).remarks
    corrected = replace(first, dating="corrected", clock="1970-01-01T00:05:00Z")
    assert "clock" not in compare(first, sample.image, corrected, sample.image).remarks
    assert [comparison.when(one) for one in (doubtful, corrected)] == [
        f"{language.moment(doubtful.taken)} (the clock was wrong)",
        f"{language.day(corrected.taken)} (date corrected)",
    ]
    language.use("ar")
    assert language.moment(doubtful.taken) in comparison.when(doubtful)
    language.use("en")
    assert comparison.clock_remark([first, corrected]) == ""
    assert "in the order in which they were added" in comparison.clock_remark([first, doubtful])


def test_a_course_counts_pictures_where_a_date_does_not_hold():
    sample = draw(3, size=(256, 320), artefacts=())
    first = capture(sample.image, sample.mask, 10.0, "2026-11-20T10:00:00Z")
    doubtful = replace(first, dating="clock wrong", taken="2018-01-28T15:58:13Z")
    last = replace(first, taken="2026-12-24T10:00:00Z")
    area, *_ = comparison.trends(history([first, doubtful, last]))
    assert (area.days, area.span) == ((0.0, 1.0, 2.0), 2.0)
    assert area.ends == ("picture 1", "picture 3")
    area, *_ = comparison.trends(history([first, last]))
    assert area.span == 34
    assert area.ends == ("Nov 20, 2026", "Dec 24, 2026")


def test_an_unreadable_analysis_is_refused_and_not_compared():
    sample = draw(3, size=(256, 320), artefacts=())
    first = capture(sample.image, sample.mask)
    other = replace(first, analysis=OtherAnalysis({}, 9), version=9)
    with pytest.raises(StoreError, match="of version 9, which this dermedge cannot read"):
        compare(first, sample.image, other, sample.image)


def test_a_picture_without_a_lesion_has_no_measures_and_is_not_compared():
    sample = draw(3, size=(256, 320), artefacts=())
    first = capture(sample.image, sample.mask, 10.0)
    outlier = {"score": 2.5, "limit": 1.5, "refused": True}
    other = replace(first, analysis=first.analysis | {"triage": "retake", "outlier": outlier})
    area, colours, asymmetry, border = comparison.trends(history([first, other]))
    assert [len(trend.values) for trend in (area, colours, asymmetry, border)] == [1, 1, 1, 1]
    assert (area.now, colours.now) == ("size unknown", "not known")
    assert comparison.shown(other).size == "size unknown"
    with pytest.raises(UserError, match="no lesion was found in the picture of 2026-01-01"):
        compare(first, sample.image, other, sample.image)


def test_marks_on_the_skin_give_the_relative_size_where_no_scale_is_known():
    sample = draw(5, style="phone", size=(480, 640), artefacts=("freckles",))
    other, mask, matrix = seen_again(sample.image, sample.mask, 20, 1.15)
    # It has shrunk since: the outline alone would hide that.
    shrunk = cv2.erode(mask.astype(np.uint8), np.ones((3, 3)), iterations=2) > 0
    captures = capture(sample.image, sample.mask), capture(other, shrunk)
    found = compare(captures[0], sample.image, captures[1], other)
    assert found.by == "skin"
    assert misplaced(found, matrix, sample.mask) < 0.05
    true = shrunk.sum() / mask.sum() - 1
    assert found.area_change == pytest.approx(true, abs=0.05)


def test_a_change_of_colour_is_told_apart_from_the_light():
    sample = draw(8, artefacts=())
    first = capture(sample.image, sample.mask)
    darker = sample.image.copy()
    darker[sample.mask] = (darker[sample.mask] * 0.6).astype(np.uint8)
    found = compare(first, sample.image, capture(darker, sample.mask), darker)
    assert found.color_change > 8
    assert found.color_shift[0] < -5  # darker
    assert found.skin_change < 2
    assert "light" not in found.remarks
    dim = (sample.image * 0.6).astype(np.uint8)
    found = compare(first, sample.image, capture(dim, sample.mask), dim)
    assert found.skin_change > 8
    assert "light" in found.remarks


def test_another_shape_and_a_lesion_that_is_cut_off_are_said():
    pixels = np.full((200, 300, 3), (205, 160, 140), np.uint8)
    disc, bar, cut = (np.zeros((200, 300), np.uint8) for _ in range(3))
    cv2.circle(disc, (150, 100), 40, 1, -1)
    cv2.rectangle(bar, (20, 90), (280, 110), 1, -1)
    cv2.circle(cut, (10, 100), 40, 1, -1)
    views = []
    for mask in (disc, bar, cut):
        drawn = pixels.copy()
        drawn[mask > 0] = (90, 60, 50)
        views.append((capture(drawn, mask > 0, 10.0), drawn))
    found = compare(*views[0], *views[1])
    assert found.overlap < 0.5
    assert "little_in_common" in found.remarks
    found = compare(*views[0], *views[2])
    assert "cut_off" in found.remarks
    assert found.area_change is None
    empty = capture(pixels, np.zeros((200, 300), bool))
    with pytest.raises(UserError, match="no lesion was found in the picture of 2026-01-01"):
        compare(*views[0], empty, pixels)
    points = history([views[0][0], empty])
    assert points[0].area_mm2 == pytest.approx(np.pi * 16, rel=0.05)
    assert points[1].area_mm2 is None


@pytest.mark.parametrize("start", [110, 0])
def test_a_plain_frame_is_no_skin_and_cuts_a_lesion_off(start):
    pixels = np.random.default_rng(0).integers(-6, 7, (200, 300, 1)) + np.array((190, 135, 105))
    mask = cv2.circle(np.zeros((200, 300), np.uint8), (150, 100), 40, 1, -1) > 0
    pixels[mask] -= (90, 70, 50)
    pixels = pixels.astype(np.uint8)
    part = np.s_[:, start + 39 :] if start else np.s_[:]  # through the lesion's middle, or none
    shape = mask[part].shape
    whole, drawn = np.full((200, shape[1] + 80, 3), 255, np.uint8), np.zeros((200, shape[1] + 80))
    whole[:, 80:], drawn[:, 80:] = pixels[part], mask[part]
    second = capture(whole, drawn > 0)
    second.analysis["inner"] = [80, 0, shape[1], 200]
    found = compare(capture(pixels, mask), pixels, second, whole)
    assert ("cut_off" in found.remarks) == (start > 0)
    assert "light" not in found.remarks
    assert found.skin_change < 1


def test_a_reduced_picture_gives_the_same():
    sample = draw(1, size=(512, 640), asymmetry=0.6)
    other, mask, _ = seen_again(sample.image, sample.mask, 50, 1.1)
    captures = capture(sample.image, sample.mask), capture(other, mask)
    whole = compare(captures[0], sample.image, captures[1], other)
    half = cv2.resize(other, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    part = compare(captures[0], sample.image, captures[1], half)
    assert part.warped.shape == sample.image.shape
    assert np.abs(part.transform - whole.transform).max() < 2
    assert part.overlap == pytest.approx(whole.overlap, abs=0.02)


@pytest.mark.parametrize("step", [240, pytest.param(60, marks=pytest.mark.slow)])
def test_real_pictures_of_one_lesion_come_to_lie_on_each_other(shared_data, step):
    """HAM10000 with its published masks: each `step`th lesion of which there are two pictures."""
    root = shared_data / "HAM10000"
    if not (root / "HAM10000_metadata.csv").exists():
        pytest.skip("HAM10000 is not there")
    images = defaultdict(list)
    with open(root / "HAM10000_metadata.csv", newline="") as file:
        for row in csv.DictReader(file):
            images[row["lesion_id"]].append(row["image_id"])
    pairs = [sorted(found)[:2] for _, found in sorted(images.items()) if len(found) > 1][::step]

    def load(name: str):
        pixels = read_image(next(root.glob(f"HAM10000_images_part_*/{name}.jpg"))).pixels
        masks = root / "HAM10000_segmentations_lesion_tschandl"
        return capture(pixels, read_mask(masks / f"{name}_segmentation.png")), pixels

    views = [(load(a), load(b)) for a, b in pairs]
    same = [compare(*first, *second) for first, second in views]
    others = [compare(*a[0], *b[1]) for a, b in zip(views, views[1:] + views[:1], strict=True)]

    def alike(found, first) -> float:
        """Correlation of the lightness within the second's outline, as it was laid."""
        where = np.zeros(found.covered.shape, np.uint8)
        for polygon in found.polygons:
            cv2.fillPoly(where, [np.round(polygon).astype(np.int32)], 1)
        where = (where > 0) & found.covered
        grays = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY)[where] for p in (first[1], found.warped)]
        return float(np.corrcoef(*grays)[0, 1])

    likeness = [alike(found, first) for found, (first, _) in zip(same, views, strict=True)]
    unlike = [alike(found, first) for found, (first, _) in zip(others, views, strict=True)]
    for title, values in (
        ("overlap of outlines", [found.overlap for found in same]),
        ("correlation of lightness", likeness),
        ("  of another lesion", unlike),
        ("colour, CIELAB", [found.color_change for found in same]),
        ("  of another lesion", [found.color_change for found in others]),
        ("  of the skin around", [found.skin_change for found in same]),
    ):
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
        print(
            f"{title}, {len(values)} pairs: median {middle:.2f}, 10 to 90 % {low:.2f}..{high:.2f}"
        )
    assert np.median([found.overlap for found in same]) > 0.88
    assert np.median(likeness) > np.median(unlike) + 0.2
    assert np.median(likeness) > 0.85
