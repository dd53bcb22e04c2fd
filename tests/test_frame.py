"""A plain frame around a picture is left out of what is judged; dark corners are no frame."""

from __future__ import annotations

import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from dermedge.analyzer import Analyzer, crop_frame
from dermedge.bundle.bundle import Bundle
from dermedge.image.frame import inner
from dermedge.image.preprocess import Placement, Preprocessing, prepare
from dermedge.image.read import Picture, read_image, read_mask, write_png


def skin(width=300, height=220) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([215 - 20 * x / width, 165 - 25 * y / height, 140 + 0 * x], 2)
    spot = np.hypot(x - 0.45 * width, y - 0.5 * height) < 0.2 * height
    smooth[spot] = (95, 60, 50)
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def framed(pixels, top=30, bottom=30, left=30, right=30, colour=(255, 255, 255)) -> np.ndarray:
    height, width = pixels.shape[:2]
    out = np.full((top + height + bottom, left + width + right, 3), colour, np.uint8)
    out[top : top + height, left : left + width] = pixels
    return out


def as_jpeg(pixels, quality=85) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return read_image(buffer.getvalue()).pixels


COLOURS = [(255,) * 3, (0,) * 3, (128,) * 3, (235, 225, 200), (20, 60, 160)]
SIDES = [
    dict(zip(("top", "bottom", "left", "right"), sides, strict=True))
    for sides in (
        (30,) * 4,
        (27, 27, 0, 0),
        (0, 0, 33, 33),
        (41, 0, 0, 0),
        (0, 0, 0, 13),
        (9, 44, 17, 23),
    )
]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("sides", SIDES)
def test_frames_of_every_colour_on_every_side(colour, sides):
    pixels = skin()
    whole = framed(pixels, **sides, colour=colour)
    assert inner(whole) == (sides["left"], sides["top"], 300, 220)
    x, y, width, height = inner(as_jpeg(whole))
    assert abs(x - sides["left"]) <= 2
    assert abs(y - sides["top"]) <= 2
    assert abs(width - 300) <= 3
    assert abs(height - 220) <= 3


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (40, 40, 44)])
def test_a_screenshots_bars_may_have_words_and_signs(colour):
    """Half of such pictures got another triage, or were refused as too bright."""
    whole, ink = framed(skin(), 180, 160, 0, 0, colour), [255 - colour[0]] * 3
    cv2.putText(whole, "12:34", (12, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.5, ink, 2, cv2.LINE_AA)
    cv2.putText(
        whole, "3. March 2026", (60, 56), cv2.FONT_HERSHEY_SIMPLEX, 0.6, ink, 1, cv2.LINE_AA
    )
    for x in (40, 150, 260):
        cv2.circle(whole, (x, 510), 9, ink, 2, cv2.LINE_AA)
    whole[545:549, 100:200] = ink
    assert inner(whole) == (0, 180, 300, 220)
    x, y, width, height = inner(as_jpeg(whole))
    assert (x, width) == (0, 300)
    assert abs(y - 180) <= 2
    assert abs(height - 220) <= 3
    # A ruler along a side looks so, too.
    assert inner(whole, written=False) == (0, 0, 300, 560)
    # Of what fills the bar to its end, nobody knows what it is.
    whole[100:180, 80:220] = 90
    assert inner(whole)[1] == 0


def test_a_frame_within_a_frame():
    assert inner(framed(framed(skin(), colour=(0, 0, 0)))) == (60, 60, 300, 220)


def test_what_is_left_has_no_frame():
    for whole in (framed(skin()), as_jpeg(framed(skin(), colour=(128, 128, 128)), 60)):
        x, y, width, height = inner(whole)
        assert inner(whole[y : y + height, x : x + width]) == (0, 0, width, height)


def test_no_frame():
    height, width = 220, 300
    y, x = np.mgrid[:height, :width]
    away = np.hypot(x - width / 2, y - height / 2)
    round_view, corners, pale, dim = (skin() for _ in range(4))
    round_view[away > 105] = 3
    corners[away > 165] = 3
    border = (x < 30) | (y < 30) | (x >= width - 30) | (y >= height - 30)
    pale[border] = np.clip(pale[border].astype(int) + 25, 0, 255)  # as uneven as other skin
    dim = (dim * np.clip((width - x) / 60, 0.2, 1)[..., None]).astype(np.uint8)  # a dark side
    thin = framed(skin(), 1, 1, 1, 1)
    blank = np.full((height, width, 3), 200, np.uint8)
    mostly = framed(skin(60, 40), 200, 200, 200, 200)  # hardly a picture is left
    for pixels in (skin(), round_view, corners, pale, dim, thin, blank, mostly, blank[:16, :16]):
        for seen in (pixels, as_jpeg(pixels)):
            assert inner(seen) == (0, 0, seen.shape[1], seen.shape[0])


@pytest.mark.parametrize("crop", [0.0, 2.0])
def test_networks_see_what_is_inside(crop):
    pixels, spec = skin(), Preprocessing(size=64, crop=crop)
    box = (75, 66, 90, 88)
    whole = framed(pixels, 10, 20, 30, 40)
    square, placement = prepare(whole, spec, (105, 76, 90, 88) if crop else None)
    expected, plain = prepare(pixels, spec, box if crop else None)
    assert (square == expected).all()
    # Points are of the whole picture.
    points = np.array([[100.0, 100.0]])
    assert np.allclose(placement.to_model(points + (30, 10)), plain.to_model(points))
    assert np.allclose(placement.to_image(plain.to_model(points)), points + (30, 10))


def test_masks_and_maps_are_of_the_whole_picture():
    whole = framed(skin(), 10, 20, 30, 40)
    _, placement = prepare(whole, Preprocessing(size=64))
    mask = np.zeros(whole.shape[:2], bool)
    mask[60:150, 100:200] = True
    square = placement.place_mask(mask)
    plain = Placement(220, 300, 64).place_mask(mask[10:230, 30:330])
    assert (square == plain).all()
    back = placement.restore(square.astype(np.float32))
    assert back.shape == mask.shape
    assert ((back >= 0.5) == mask).mean() > 0.97
    assert not back[:10].any()
    assert placement.restore(square.astype(np.float32), (125, 185)).shape == (125, 185)


def test_a_framed_picture_is_judged_as_without_its_frame(tiny_bundle):
    analyzer = Analyzer(Bundle.open(tiny_bundle))
    pixels = skin()
    whole = framed(pixels, 10, 20, 30, 40)
    plain, found = (analyzer.analyze(Picture(p, *p.shape[:2]), "x") for p in (pixels, whole))
    assert plain.inner is None
    assert found.inner == (30, 10, 300, 220)
    assert (found.width, found.height) == (370, 250)
    for name in ("quality", "probabilities", "triage", "rule", "malignancy", "likely"):
        assert getattr(found, name) == getattr(plain, name)
    assert found.lesion.box == (
        plain.lesion.box[0] + 30,
        plain.lesion.box[1] + 10,
        *plain.lesion.box[2:],
    )
    assert np.allclose(found.lesion.polygons[0], plain.lesion.polygons[0] + (30, 10))
    assert np.allclose(found.lesion.centroid, np.add(plain.lesion.centroid, (30, 10)))
    assert found.lesion.area_px == plain.lesion.area_px
    mask = found.full_mask()
    assert (mask[10:230, 30:330] == plain.full_mask()).all()
    assert mask.sum() == plain.full_mask().sum()
    assert json.loads(json.dumps(found.to_json()))["inner"] == [30, 10, 300, 220]


def test_a_large_framed_picture(tiny_bundle, tmp_path):
    """Reduced in reading: coordinates are of the file's pixels."""
    whole = framed(np.kron(skin(), np.ones((8, 8, 1), np.uint8)), 240, 240, 320, 320)
    write_png(tmp_path / "a.png", whole)
    found = Analyzer(Bundle.open(tiny_bundle)).analyze(tmp_path / "a.png")
    assert np.abs(np.subtract(found.inner, (320, 240, 2400, 1760))).max() <= 4
    middle = np.add((0.45 * 2400, 0.5 * 1760), (320, 240))
    assert np.abs(np.subtract(found.lesion.centroid, middle)).max() < 12
    write_png(tmp_path / "mask.png", found.full_mask().astype(np.uint8) * 255)
    assert read_mask(tmp_path / "mask.png").shape == whole.shape[:2]


def test_a_frame_that_noise_hides_moves_no_outline(tiny_bundle):
    """Found in the smaller copy alone, it stretched the outline over the whole picture."""
    pixels = np.kron(skin(), np.ones((4, 4, 1), np.uint8))
    whole = framed(pixels, 0, 0, 0, 240, (230, 225, 220)).astype(float)
    whole[:, 1200:] += np.random.default_rng(0).normal(0, 7, (880, 240, 1))
    whole = np.clip(whole, 0, 255).astype(np.uint8)
    assert inner(whole) == (0, 0, 1440, 880)
    analyzer = Analyzer(Bundle.open(tiny_bundle))
    plain, found = (analyzer.analyze(Picture(p, *p.shape[:2]), "x") for p in (pixels, whole))
    assert found.inner == (0, 0, 1200, 880)
    for name in ("box", "area_px", "border"):
        assert getattr(found.lesion, name) == getattr(plain.lesion, name)
    assert found.probabilities == plain.probabilities


def test_what_is_judged_lies_within_a_picture_of_an_odd_size():
    """Reduced in reading: the last px of a row or column covers one px alone."""
    for bar, whole in ((np.s_[:150], 1200), (np.s_[:, :300], 1199)):
        pixels = np.random.default_rng(0).integers(80, 160, (601, 600, 3), dtype=np.uint8)
        pixels[bar] = 255
        x, y, width, height = crop_frame(Picture(pixels, 1201, whole)).part
        assert (x + width, y + height) == (whole, 1201)


def test_explanations_lie_inside(make_bundle):
    from dermedge.explain import malignant_share

    analyzer = Analyzer(Bundle.open(make_bundle()))
    pixels = skin()
    whole = framed(pixels, 10, 20, 30, 40)
    plain, found = (analyzer.analyze(Picture(p, *p.shape[:2]), "x") for p in (pixels, whole))
    share = malignant_share(found, whole.shape[:2])
    assert np.isnan(share[:10]).all()
    assert np.allclose(
        share[10:230, 30:330], malignant_share(plain, pixels.shape[:2]), equal_nan=True
    )


def test_real_dermoscopy_has_hardly_a_frame(shared_data):
    paths = sorted((shared_data / "HAM10000").rglob("*.jpg"))[::100]
    for path in paths:
        pixels = read_image(path).pixels
        assert inner(pixels) == (0, 0, pixels.shape[1], pixels.shape[0]), path


def test_case_folder(real_images):
    folder = real_images and real_images.parent / "cases" / "white-frame"
    if not folder or not folder.is_dir():
        pytest.skip("the folder of cases is not here")
    pixels = read_image(folder / "framed.jpg").pixels
    assert inner(pixels) == (84, 84, 900, 700)
