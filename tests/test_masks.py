"""Masks: two values as drawn, edges between them cut in the middle, everything else refused."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from commands import call
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_datasets import picture, table

from benchmarks.commands.evaluate import EVALUATE
from dermedge import UserError
from dermedge.data import load
from dermedge.data.check import check
from dermedge.data.masks import read_lesion_mask, read_lesion_picture
from dermedge.image.mask_values import lesion_pixels, looks_inverted
from dermedge.image.read import ImageError, read_mask

SIZE = (72, 96)


def lesion(size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    center = (size[1] // 2, size[0] // 2)
    cv2.ellipse(mask, center, (size[1] // 4, size[0] // 5), 20, 0, 360, 1, -1)
    return mask.astype(bool)


def stored(values: np.ndarray, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind, **options)
    return file.getvalue()


def drawn(low: int, high: int, dtype=np.uint8, mask: np.ndarray | None = None) -> np.ndarray:
    mask = lesion() if mask is None else mask
    return np.where(mask, high, low).astype(dtype)


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read_mask(data)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 100), (0, 2), (1, 2), (0, 1), (254, 255), (0, 255), (10, 245), (0, 128), (7, 9)],
)
def test_the_higher_of_two_values_is_the_lesion(low, high, kind):
    assert (read_mask(stored(drawn(low, high), kind)) == lesion()).all()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (0, 4095), (1, 65535)])
def test_sixteen_bits(low, high):
    assert (read_mask(stored(drawn(low, high, np.uint16))) == lesion()).all()


def test_palettes_and_two_colours_that_have_an_order():
    indexed = Image.fromarray(drawn(0, 1), "P")
    indexed.putpalette([0, 0, 0, 128, 0, 0] + [0] * 762)  # black and VOC's first colour
    file = io.BytesIO()
    indexed.save(file, "PNG")
    assert (read_mask(file.getvalue()) == lesion()).all()
    white = np.full((*SIZE, 3), 255, np.uint8)
    white[~lesion()] = (0, 0, 255)
    assert (read_mask(stored(white)) == lesion()).all()


@pytest.mark.parametrize(("value", "full"), [(0, False), (255, True)])
def test_empty_and_full_masks(value, full):
    for kind in ("PNG", "BMP", "JPEG"):
        assert (read_mask(stored(np.full(SIZE, value, np.uint8), kind)) == full).all()


@pytest.mark.parametrize("value", [1, 2, 100, 254])
def test_one_value_that_says_nothing_is_refused(value):
    assert f"have the value {value}" in refusal(stored(np.full(SIZE, value, np.uint8)))


@pytest.mark.parametrize(
    "values", [(0, 1, 2), (0, 128, 255), (0, 1, 255), (1, 2, 3), (0, 254, 255)]
)
def test_label_maps_are_refused(values):
    labels = drawn(values[0], values[1])
    inner = cv2.erode(lesion().astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    labels[inner] = values[2]
    assert "a label map" in refusal(stored(labels))


def test_soft_maps_and_pictures_are_refused():
    mask = lesion().astype(np.uint8)
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
    soft = (255 / (1 + np.exp((outside - inside) / 8))).astype(np.uint8)
    assert "a soft map" in refusal(stored(soft))
    assert "a soft map" in refusal(stored(cv2.GaussianBlur(mask * 255, (0, 0), 6)))
    rng = np.random.default_rng(0)
    photo = cv2.resize(rng.integers(0, 255, (9, 12, 3), np.uint8), SIZE[::-1])
    assert "in colours" in refusal(stored(photo))
    assert "in colours" in refusal(stored(photo, "JPEG"))
    assert "a soft map" in refusal(stored(photo[..., 0]))


def test_colours_without_an_order_are_refused():
    colours = np.zeros((*SIZE, 3), np.uint8)
    colours[lesion()] = (255, 0, 0)
    colours[~lesion()] = (0, 255, 0)
    assert "in colours" in refusal(stored(colours))
    colours[:5] = 0
    assert "in colours" in refusal(stored(colours))


def test_transparency_that_disagrees_is_refused():
    values = np.zeros((*SIZE, 4), np.uint8)
    values[lesion()] = 255
    assert (read_mask(stored(values)) == lesion()).all()
    values[..., 3] = 255
    assert (read_mask(stored(values)) == lesion()).all()
    values[..., :3] = 255
    values[..., 3] = lesion() * np.uint8(255)
    assert "transparency" in refusal(stored(values))
    # However small: black all over is no empty mask.
    values = np.zeros((200, 200, 4), np.uint8)
    values[90:94, 90:94, 3] = 255
    assert "transparency" in refusal(stored(values))


@pytest.mark.parametrize("quality", [20, 50, 75, 95])
def test_the_noise_of_jpeg_is_no_third_value(quality):
    data = stored(drawn(0, 255), "JPEG", quality=quality)
    assert np.mean(read_mask(data) != lesion()) < 0.01
    again = np.asarray(Image.open(io.BytesIO(data)))
    assert np.mean(read_mask(stored(again)) != lesion()) < 0.01


def test_a_lossy_file_of_close_values_is_refused():
    assert "as little as the noise" in refusal(stored(drawn(0, 2), "JPEG", quality=95))


@pytest.mark.parametrize("factor", [0.25, 0.5, 0.7, 1.5, 2, 4])
@pytest.mark.parametrize("way", [cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC])
def test_the_edges_of_resized_masks_are_cut_in_the_middle(factor, way):
    large = lesion((360, 480))
    small = cv2.resize(drawn(0, 255, mask=large), None, fx=factor, fy=factor, interpolation=way)
    found = read_mask(stored(small))
    expected = lesion(found.shape)
    assert (found & expected).sum() / (found | expected).sum() > 0.95


@given(st.binary(min_size=16, max_size=256), st.booleans(), st.sampled_from([1, 3, 4]))
def test_any_samples_give_a_mask_or_one_line(data, lossy, channels):
    count = len(data) // (4 * channels)
    if not count:
        return
    samples = np.frombuffer(data[: 4 * count * channels], np.uint8).reshape(4, count, channels)
    with contextlib.suppress(ImageError):
        found = lesion_pixels(samples[..., 0] if channels == 1 else samples, lossy)
        assert (found.dtype, found.shape) == (bool, (4, count))


def test_inverted_masks_and_masks_of_another_shape(tmp_path):
    path = tmp_path / "m.png"
    path.write_bytes(stored(drawn(255, 0)))
    assert looks_inverted(read_mask(path))
    with pytest.raises(ImageError, match="looks inverted"):
        read_lesion_mask(path, *SIZE)
    path.write_bytes(stored(drawn(0, 255)))
    assert (read_lesion_mask(path, SIZE[0] * 2, SIZE[1] * 2) == lesion()).all()
    with pytest.raises(ImageError, match="another shape"):
        read_lesion_mask(path, 96, 72)
    # A lesion that fills the frame, or lies at its border, is none.
    assert not looks_inverted(np.ones(SIZE, bool))
    for width in (60, 80, 92):
        half = np.zeros(SIZE, bool)
        half[:, :width] = True
        assert not looks_inverted(half)


def test_inverted_masks_of_a_lesion_at_the_border_or_a_tiny_one():
    for shift, radius in ((-36, 20), (0, 6)):
        mask = np.ones(SIZE, np.uint8)
        cv2.circle(mask, (SIZE[1] // 2 + shift, SIZE[0] // 2), radius, 0, -1)
        assert looks_inverted(mask.astype(bool))
        assert not looks_inverted(~mask.astype(bool))
    noise = np.ones(SIZE, bool)
    noise[30, 40] = False
    assert not looks_inverted(noise)


# --- data sets ---------------------------------------------------------------------------------


def masked_set(root: Path, *masks: np.ndarray) -> str:
    rows = []
    for number, values in enumerate(masks):
        picture(root / f"{number}.png", number, SIZE)
        (root / f"m{number}.png").write_bytes(stored(values))
        rows.append(f"{number}.png,m{number}.png,nevus,L{number}")
    table(root / "data.csv", "image,mask,diagnosis,lesion_id", *rows)
    return f"csv={root}"


def test_data_check_names_masks_of_other_kinds_with_counts(tmp_path):
    labels = drawn(0, 1)
    labels[30:40, 40:50] = 2
    empty = np.zeros(SIZE, np.uint8)
    masked_set(tmp_path, drawn(0, 2), drawn(255, 0), drawn(255, 0), labels, empty)
    report = check(load("csv", tmp_path), progress=False)
    assert report.mask_problems.keys() == {"1", "2", "3", "4"}
    assert "looks inverted" in report.mask_problems["1"]
    assert "label map" in report.mask_problems["3"]
    assert "empty" in report.mask_problems["4"]


def test_a_mask_in_place_of_a_picture_is_neither_split_learnt_nor_measured(tmp_path):
    from benchmarks.accuracy.evaluate import read_picture
    from train.data import load_pictures
    from train.recipe import load_recipe

    for number, suffix in enumerate((".jpg", ".png", ".png")):
        picture(tmp_path / "nevus" / f"{number}{suffix}", number, SIZE)
    skin = np.full((*SIZE, 3), (225, 180, 160), np.uint8)
    skin[lesion()] = (90, 60, 50)
    Image.fromarray(skin).save(tmp_path / "nevus" / "drawn.png")
    for name in ("0_lesion.png", "1_lesion.jpg"):
        Image.fromarray(drawn(0, 255)).save(tmp_path / "nevus" / name)
    labels = np.zeros((*SIZE, 3), np.uint8)
    labels[lesion()] = (128, 0, 0)
    labels[:2] = (0, 128, 0)
    Image.fromarray(labels).save(tmp_path / "nevus" / "2_labels.png")
    found = load("folders", tmp_path)
    masks = {"nevus/0_lesion", "nevus/1_lesion", "nevus/2_labels"}
    report = check(found, progress=False)
    assert report.unreadable.keys() == masks
    assert (
        "a mask of few values, no picture of skin; move it" in report.unreadable["nevus/0_lesion"]
    )
    recipe = load_recipe("classifier", ["preprocessing.size=32", "pretrained=no"])
    pictures = load_pictures(found.records, recipe, tmp_path / "cache")
    assert {record.id for record in found.records} - {r.id for r in pictures.records} == masks
    with pytest.raises(ImageError, match=r"^1_lesion\.jpg: a mask of few values"):
        read_picture(next(r for r in found.records if r.id == "nevus/1_lesion"))


@pytest.mark.parametrize("kind", [("PNG", {}), ("JPEG", {"quality": 85})])
@pytest.mark.parametrize(
    "colours",
    [
        [(0, 0, 0), (255, 0, 0)],
        [(255, 255, 255), (255, 0, 0)],
        [(68, 1, 84), (253, 231, 37)],  # matplotlib's
    ],
)
def test_a_mask_in_colours_is_no_picture_but_drawn_skin_is(kind, colours):
    size = (180, 240)
    mask = lesion(size).astype(int)
    coloured = stored(np.array(colours, np.uint8)[mask], kind[0], **kind[1])
    with pytest.raises(ImageError, match="a mask of few values, no picture of skin"):
        read_lesion_picture(Path("m"), coloured)
    skin = np.array([(230, 180, 150), (90, 40, 30)], np.uint8)[mask]
    assert read_lesion_picture(Path("m"), stored(skin, kind[0], **kind[1])).width == 240
    # A green cloth around a photograph.
    noise = np.random.default_rng(0).integers(60, 190, (*size, 3), np.uint8)
    photograph = np.where(mask[..., None], noise, np.array([0, 177, 64], np.uint8))
    assert read_lesion_picture(Path("m"), stored(photograph, kind[0], **kind[1])).width == 240


def test_data_check_counts_inverted_and_empty_masks(tmp_path, capsys):
    from dermedge.cli import main

    source = masked_set(tmp_path, *[drawn(255, 0)] * 2, np.zeros(SIZE, np.uint8), drawn(0, 255))
    assert main(["data", "check", source, "--split", str(tmp_path / "s.json")]) == 0
    printed = capsys.readouterr().out
    assert "masks that look inverted (lesion and skin swapped): 2" in printed
    assert "empty masks: 1" in printed


def test_data_check_judges_masks_that_are_smaller_than_their_pictures(tmp_path):
    masks = [
        values[::2, ::2] for values in (drawn(255, 0), drawn(0, 255), np.zeros(SIZE, np.uint8))
    ]
    masked_set(tmp_path, *masks, drawn(0, 255)[:40])
    problems = check(load("csv", tmp_path), progress=False).mask_problems
    assert "looks inverted" in problems["0"]
    assert problems["1"] == "mask is 48x36, picture 96x72; it is scaled"
    assert "mask is empty" in problems["2"]
    assert problems["3"] == "mask is 96x40, picture 96x72"


def test_training_leaves_masks_of_other_kinds_out_and_refuses_nothing_but_empty_ones(tmp_path):
    from train.data import load_pictures
    from train.loop import _masks
    from train.recipe import load_recipe

    recipe = load_recipe("segmenter", ["preprocessing.size=32", "pretrained=no"])
    labels = drawn(0, 1)
    labels[30:40, 40:50] = 2
    masked_set(tmp_path, drawn(0, 2), drawn(1, 2), drawn(0, 100), labels, drawn(255, 0))
    pictures = load_pictures(load("csv", tmp_path).records, recipe, tmp_path / "cache")
    assert [record.id for record in pictures.records] == ["0", "1", "2"]
    assert all(pictures.mask(index).any() for index in range(3))
    assert [line.split(":")[0] for line in pictures.problems] == ["3", "4"]
    assert _masks(pictures) == (0, 3)


def test_training_on_empty_masks_alone_is_refused(tmp_path):
    from dermedge.data import make_split
    from train.loop import train
    from train.recipe import load_recipe

    masked_set(tmp_path, *[np.zeros(SIZE, np.uint8)] * 4)
    data_set = load("csv", tmp_path)
    recipe = load_recipe("segmenter", ["preprocessing.size=32", "pretrained=no", "batch_size=2"])
    with pytest.raises(UserError, match="all masks of the training part are empty"):
        train(recipe, data_set, make_split(data_set), tmp_path / "run")


def test_an_evaluation_of_empty_masks_alone_is_refused(tmp_path, tiny_bundle, capsys):
    empty = np.zeros(SIZE, np.uint8)
    source = masked_set(tmp_path, empty, empty, empty)
    words = ("--bundle", tiny_bundle, "--data", source, "--split", "all", "--json")
    with pytest.raises(UserError, match="all 3 masks of these pictures are empty"):
        call(EVALUATE, *words)
    source = masked_set(tmp_path, empty, drawn(0, 2), drawn(0, 255))
    assert call(EVALUATE, *words) == 0
    assert "1 of 3 masks are empty" in capsys.readouterr().out


def test_real_masks_are_read_as_they_are(shared_data):
    folders = [
        *("HAM10000/HAM10000_segmentations_lesion_tschandl", "PAD-UFES-20/student_masks"),
        "ISIC2017/ISIC-2017_Training_Part1_GroundTruth",
    ]
    for folder in folders:
        for path in sorted((shared_data / folder).glob("*.png"))[::97]:
            expected = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) > 127
            assert (read_mask(path) == expected).all()
            assert not looks_inverted(expected)
