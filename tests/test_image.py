"""Reading pictures: equal to Pillow where the file is good, one clear line where it is not."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from dermedge.image import read as image
from dermedge.image.decode import MAX_PIXELS, open_picture
from dermedge.image.foreign import read_foreign
from dermedge.image.read import (
    ImageError,
    find_images,
    find_other_pictures,
    read_image,
    read_mask,
    write_png,
)

NOISE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF")


def picture(width=60, height=44) -> np.ndarray:
    """A smooth picture without any symmetry: uint8 RGB."""
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    return np.rint(np.stack([60 + 180 * x, 40 + 190 * y, 220 - 150 * x * y], 2)).astype(np.uint8)


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    if kind in ("WEBP", "AVIF", "JPEG"):
        options.setdefault("quality", 95)
    if kind == "WEBP":
        options.setdefault("lossless", True)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(kind: str, orientation: int, array=None) -> bytes:
    stored = Image.fromarray(picture() if array is None else array)
    exif = Image.Exif()
    exif[274] = orientation
    if kind == "TIFF":
        return encode(stored, kind, tiffinfo={274: orientation})
    return encode(stored, kind, exif=exif.tobytes())


def by_pillow(data: bytes) -> np.ndarray:
    """Pillow's own reading, transparent parts on white: uint8 RGB."""
    opened = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if "A" in opened.mode or "transparency" in opened.info:
        opened = opened.convert("RGBA")
        opened = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened)
    return np.asarray(opened.convert("RGB"))


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_header(width, height, bits=8, colour=2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)


# ------------------------------------------------------------------ good files


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "BMP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(kind, orientation):
    data = with_orientation(kind, orientation)
    got = read_image(data)
    assert difference(got.pixels, by_pillow(data)) <= (12 if kind in ("JPEG", "AVIF") else 0)
    assert (got.height, got.width) == got.pixels.shape[:2]
    assert got.pixels.flags.c_contiguous


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_reduced_reading_shows_the_same_picture(kind, orientation):
    data = with_orientation(kind, orientation, picture(403, 301))
    full, reduced = read_image(data, None), read_image(data, 100)
    assert (reduced.height, reduced.width) == full.pixels.shape[:2]
    shown = Image.fromarray(full.pixels).resize(reduced.pixels.shape[1::-1], Image.BOX)
    assert max(reduced.pixels.shape) == 101
    assert difference(reduced.pixels, np.asarray(shown)) <= 12


def test_halving_stops_at_the_working_side():
    data = encode(Image.fromarray(picture(640, 32)), "JPEG")
    sides = {side: read_image(data, side).pixels.shape[1] for side in (641, 321, 320, 161, 160, 20)}
    assert sides == {641: 640, 321: 640, 320: 320, 161: 320, 160: 160, 20: 80}
    assert read_image(data, 20).width == 640


MODES = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"),
    "BMP": ("1", "L", "P", "RGB"),
    "WEBP": ("RGB", "RGBA"),
}


@pytest.mark.parametrize(
    ("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes]
)
def test_modes_equal_pillow(kind, mode):
    stored = Image.fromarray(picture()).convert(mode)
    if "A" in mode:
        stored.putalpha(Image.fromarray(picture()[..., 0]))
    data = encode(stored, kind)
    assert difference(read_image(data).pixels, by_pillow(data)) <= (2 if kind == "JPEG" else 1)


@pytest.mark.parametrize("transparent", [b"\x05", 5])
def test_palette_with_transparency_lies_on_white(transparent):
    stored = Image.fromarray(picture()).quantize(16)
    data = encode(stored, "PNG", transparency=5)
    pixels = read_image(data).pixels
    assert difference(pixels, by_pillow(data)) == 0
    assert (pixels[np.asarray(stored) == 5] == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_is_divided_by_257_and_rounded(kind):
    values = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    pixels = read_image(encode(Image.fromarray(values), kind)).pixels
    assert difference(pixels[..., 0], np.rint(values / 257)) == 0
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_png(colour, channels):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 65536, (20, 24, channels), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = png(png_header(24, 20, 16, colour), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    colours = np.rint(values[..., : 3 if channels > 2 else 1] / 257)
    alpha = np.rint(values[..., -1:] / 257) if colour in (4, 6) else 255
    expected = np.broadcast_to((colours * alpha + 255 * (255 - alpha)) / 255, (20, 24, 3))
    assert difference(read_image(data).pixels, np.rint(expected)) <= 1


@pytest.mark.parametrize(
    ("bits", "colour"), [(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)]
)
def test_one_colour_of_a_png_may_be_transparent(bits, colour):
    channels, most = 1 if colour == 0 else 3, (1 << bits) - 1
    keyed, other = [0] * channels, [most] * channels
    rows = b""
    for y in range(20):
        values = [other if (x // 8 + y // 4) % 2 else keyed for x in range(24)]
        packed = "".join(format(v, f"0{bits}b") for value in values for v in value)
        rows += b"\0" + int(packed, 2).to_bytes(len(packed) // 8, "big")
    # Values with bits beyond those of a sample mean the same.
    high = 0 if bits == 16 else 1 << bits
    key = struct.pack(f">{channels}H", *[high] * channels)
    data = png(
        png_header(24, 20, bits, colour),
        (b"tRNS", key),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    assert (read_image(data).pixels == 255).all()  # white shows, and the rest is white
    mask = read_mask(data)
    assert mask[0, 8]
    assert not mask[0, 0]


def test_a_tiff_palette_of_8_bits_is_not_black():
    drawn = np.zeros((44, 60), np.uint8)
    drawn[10:30, 20:40] = 1
    palette = Image.fromarray(drawn, "P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    data = bytearray(encode(palette, "TIFF"))
    (at,) = struct.unpack_from("<I", data, data.index(struct.pack("<HHI", 320, 3, 768)) + 8)
    for entry in range(at, at + 2 * 768, 2):
        struct.pack_into("<H", data, entry, data[entry + 1])
    assert (read_mask(bytes(data)) == drawn).all()


def test_inverted_gray_tiff():
    buffer = io.BytesIO()
    stored = Image.fromarray(picture()[..., 0])
    stored.save(buffer, "TIFF", tiffinfo={262: 0})
    data = buffer.getvalue()
    assert difference(read_image(data).pixels, by_pillow(data)) == 0


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
def test_compressed_tiff(compression):
    data = encode(Image.fromarray(picture()), "TIFF", compression=compression)
    assert difference(read_image(data).pixels, by_pillow(data)) <= 2


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 2}, {"optimize": True}])
def test_jpeg_variants(options):
    data = encode(Image.fromarray(picture()), "JPEG", **options)
    assert difference(read_image(data).pixels, by_pillow(data)) <= 12


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_first_of_several_pictures_is_read(kind):
    first, second = Image.fromarray(picture()), Image.new("RGB", (60, 44), "red")
    data = encode(first, kind, save_all=True, append_images=[second])
    assert difference(read_image(data).pixels, picture()) == 0


def test_jpeg_with_something_behind_its_end_is_good():
    data = encode(Image.fromarray(picture()), "JPEG")
    plain = read_image(data).pixels
    for tail in (b"\0" * 5000, b"\0\0\0\x18ftypmp42" + os.urandom(3000), data[:500]):
        assert (read_image(data + tail).pixels == plain).all()


@pytest.mark.parametrize(
    ("at", "value"),
    [
        pytest.param(11, b"\x31", id="a third of the colours' px"),
        pytest.param(11, b"\x42", id="an eighth of the colours' px"),
        pytest.param(5, b"\0\0", id="height behind the scan"),
        pytest.param(1, b"\xf7", id="JPEG-LS"),
    ],
)
def test_a_jpeg_of_an_unusual_kind_is_not_called_damaged(at, value):
    """A new picture of the same camera would be refused, too."""
    data = bytearray(encode(Image.fromarray(picture()), "JPEG"))
    start = data.index(b"\xff\xc0") + at
    data[start : start + len(value)] = value
    refuses(bytes(data), "not supported")


def test_heic(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[274] = orientation
        heif = pillow_heif.from_pillow(Image.fromarray(picture(128, 96)))
        path = tmp_path / f"{orientation}.jpg"
        heif.save(path, quality=95, exif=exif.tobytes())
        got = read_image(path)
        expected = np.rot90(picture(128, 96), -1) if orientation == 6 else picture(128, 96)
        assert difference(got.pixels, expected) <= 16
        assert (got.height, got.width) == expected.shape[:2]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_heic_of_48_megapixels_fits_into_memory(mode):
    """As phones take it at their largest. Judged by a small one: writing that takes a minute."""
    pillow_heif = pytest.importorskip("pillow_heif")
    drawn = Image.fromarray(picture(127, 95)).convert(mode)
    needed = {}
    for chroma in (420, 444):
        file = io.BytesIO()
        pillow_heif.from_pillow(drawn).save(file, quality=90, chroma=chroma)
        opened = open_picture(file.getvalue())
        samples = opened.decode(1)
        assert (samples == np.asarray(pillow_heif.open_heif(file).to_pillow())).all()
        assert samples.flags.writeable
        assert (opened.decode(2) == samples).all()
        share = 8064 * 6048 / (127 * 95)
        needed[chroma] = (opened.pixel_bytes + 3) * 8064 * 6048 + opened.extra_bytes * share
    assert mode == "L" or needed[420] < image.MAX_DECODED_BYTES < needed[444]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_that_was_blanked_is_no_reason_to_refuse_a_picture(kind):
    data = encode(Image.fromarray(picture()), kind)
    blanked = encode(Image.fromarray(picture()), kind, exif=b"Exif\0\0" + bytes(64))
    assert (read_image(blanked).pixels == read_image(data).pixels).all()


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_what_follows_a_heic_or_avif_is_no_part_of_it(kind):
    """An empty box, a film that is cut short, or what is no box: it was said to be cut short."""
    buffer = io.BytesIO()
    if kind == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif")
        pillow_heif.from_pillow(Image.fromarray(picture())).save(buffer)
    else:
        Image.fromarray(picture()).save(buffer, kind)
    data = buffer.getvalue()
    plain = read_image(data).pixels
    for tail in (b"\0\0\0\x08free", b"\0\0\0\x01free", b"\r\n", b"SEFH\1\2\3SEFT", b"\0\1\0\0mpvd"):
        assert (read_image(data + tail).pixels == plain).all()
    for tail in (b"\0\0\0\x01mdat", b"\0\1\0\0mdat"):
        refuses(data + tail, "cut short")


def test_a_bmp_may_hold_its_programs_own_where_it_is_reserved():
    data = encode(Image.fromarray(picture()), "BMP")
    marked = data[:6] + b"DCAM" + data[10:]
    assert (read_image(marked).pixels == picture()).all()


def test_heic_without_its_package_says_what_to_install(monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(picture(128, 96))).save(buffer)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="pip install"):
        read_image(buffer.getvalue())


def test_the_extension_does_not_matter(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encode(Image.fromarray(picture()), "WEBP"))
    assert (read_image(path).pixels == picture()).all()
    assert (read_image(str(path)).pixels == picture()).all()


def test_real_pictures_equal_pillow(shared_data):
    paths = sorted((shared_data / "phone_photos").glob("*.jpg"))[:4]
    paths += sorted((shared_data / "PAD-UFES-20" / "images").rglob("*.*"))[:12]
    for path in paths:
        ours, theirs = read_image(path, None).pixels, by_pillow(path.read_bytes())
        # Two JPEG libraries may differ by rounding, most where colour is upsampled.
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).mean() < 0.5


# ------------------------------------------------------------------ masks and writing


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_masks_of_either_range(kind, high):
    mask = np.zeros((40, 50), bool)
    mask[10:30, 5:20] = True
    data = encode(Image.fromarray(mask.astype(np.uint8) * np.uint8(high)), kind)
    assert (read_mask(data) == mask).all()


def test_mask_modes():
    mask = np.zeros((40, 50), bool)
    mask[10:30, 5:20] = True
    gray = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    wide = Image.fromarray(mask.astype(np.uint16) * np.uint16(65535))
    for stored in (gray.convert("1"), gray.convert("RGB"), gray.convert("P"), wide):
        got = read_mask(encode(stored, "PNG"))
        assert got.dtype == bool
        assert (got == mask).all()
    assert (read_mask(encode(gray, "JPEG", quality=90)) == mask).all()
    assert not read_mask(encode(Image.new("L", (50, 40)), "PNG")).any()


def test_mask_follows_the_orientation_of_its_picture():
    array = np.zeros((40, 50), np.uint8)
    array[:10, :20] = 255
    got = read_mask(with_orientation("PNG", 6, array))
    assert (got == np.rot90(array > 127, -1)).all()


@pytest.mark.parametrize("shape", [(40, 50, 3), (40, 50)])
def test_written_png_reads_back_and_tells_nothing(tmp_path, shape):
    array = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    write_png(tmp_path / "a.png", array)
    opened = Image.open(tmp_path / "a.png")
    assert (np.asarray(opened) == array).all()
    assert not opened.info
    assert not opened.getexif()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_write_png_refuses_other_arrays(tmp_path):
    for array in (np.zeros((4, 4), bool), np.zeros((4, 4, 4), np.uint8), np.zeros((4,), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8"):
            write_png(tmp_path / "a.png", array)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ finding files


def test_find_images(tmp_path):
    for name in ("p10.jpg", "p2.JPG", "notes.txt", "deep/p1.heic", "deep/._p1.heic", ".DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    odd, missing = tmp_path / "notes.txt", tmp_path / "missing.jpg"
    found = find_images([odd, tmp_path, str(missing), tmp_path / "p2.JPG"])
    assert found == [
        odd,
        tmp_path / "deep" / "p1.heic",
        tmp_path / "p2.JPG",
        tmp_path / "p10.jpg",
        missing,
    ]


def test_find_images_takes_what_cameras_call_their_pictures(tmp_path):
    for name in ("a.HIF", "b.mpo", "c.NRW", "d.x3f"):
        (tmp_path / name).touch()
    assert [path.name for path in find_images([tmp_path])] == ["a.HIF", "b.mpo"]
    assert [path.name for path in find_other_pictures([tmp_path])] == ["c.NRW", "d.x3f"]


def test_find_images_follows_links_to_folders_and_leaves_out_hidden_ones(tmp_path):
    day, card = tmp_path / "day", tmp_path / "card"
    for folder in (day / ".thumbnails", card):
        folder.mkdir(parents=True)
        (folder / "1.jpg").touch()
        (folder / "1.dng").touch()
    (day / "linked").symlink_to(card)
    (card / "back").symlink_to(day)
    assert find_images([day]) == [day / "linked" / "1.jpg"]
    assert find_other_pictures([day]) == [day / "linked" / "1.dng"]


def test_find_images_sorts_numbers_beside_letters(tmp_path):
    for name in ("a1", "1", "b", "10", "2x", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "7.png").touch()
    found = find_images([tmp_path])
    assert [path.parent.name for path in found] == ["1", "2x", "10", "a", "a1", "b"]


# ------------------------------------------------------------------ bad files


def refuses(source, match: str) -> None:
    for read in (read_image, read_mask):
        with pytest.raises(ImageError, match=match) as caught:
            read(source)
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 600
        # A shown traceback would mean that the cause was not understood.
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.99])
def test_cut_short(kind, kept):
    data = encode(Image.fromarray(NOISE), kind)
    refuses(data[: int(len(data) * kept)], "cut short|damaged|not a JPEG")


def test_real_jpeg_cut_short(shared_data):
    for path in sorted((shared_data / "phone_photos").glob("*.jpg"))[:3]:
        data = path.read_bytes()
        for kept in (0.5, 0.9, 0.999):
            refuses(data[: int(len(data) * kept)], "cut short")


def test_empty_random_and_other_files(tmp_path):
    refuses(b"", "empty")
    refuses(os.urandom(5000).replace(b"\xff\xd8", b""), "not a JPEG")
    refuses(b"%PDF-1.7" + bytes(100), "not a JPEG")
    for magic in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"II*\0", b"BM"):
        for rest in (b"", bytes(200), b"\xff" * 200):
            refuses(magic + rest, "cut short|damaged|not a|empty|too")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"GIF89a", "GIF"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a", "JPEG XL"),
        (b"8BPS", "Photoshop"),
    ],
)
def test_other_pictures_are_named_and_how_to_save_them(data, kind):
    refuses(data, f"this is a {kind} picture, which is not read: save it as JPEG or PNG")


def test_paths_that_are_no_files(tmp_path):
    refuses(tmp_path, "is a folder")
    refuses(tmp_path / "missing.png", "No such file")
    refuses(tmp_path / ("x" * 400), "too long")
    refuses("a\0b", "null")
    os.mkfifo(tmp_path / "pipe")
    refuses(tmp_path / "pipe", "not a regular file")
    (tmp_path / "two\nlines.png").write_bytes(b"")
    refuses(tmp_path / "two\nlines.png", "lines.png: the file is empty")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read every file")
def test_forbidden_file(tmp_path):
    (tmp_path / "a.png").touch(mode=0)
    refuses(tmp_path / "a.png", "Permission denied")


def test_sizes_outside_the_limits():
    for size in ((1, 1), (15, 400), (400, 15)):
        for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
            refuses(encode(Image.new("RGB", size), kind), "too small")
    read_image(encode(Image.new("RGB", (16, 16)), "PNG"))


def test_bombs_are_refused_before_decoding():
    rows = zlib.compress(bytes(1000))
    for width, height in ((50_000, 50_000), (2**31 - 1, 2**31 - 1), (20_000, 6_001)):
        refuses(png(png_header(width, height), (b"IDAT", rows), (b"IEND", b"")), "too large")
    refuses(png(png_header(0, 40), (b"IDAT", rows), (b"IEND", b"")), "damaged")
    # Within the pixels allowed, but 8 bytes each.
    wide = png(png_header(10_000, 10_000, 16, 6), (b"IDAT", rows), (b"IEND", b""))
    refuses(wide, "needs 1100 MB")
    jpeg = bytearray(encode(Image.new("RGB", (64, 64)), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    refuses(bytes(jpeg), "too large")
    tiff = bytearray(encode(Image.new("RGB", (64, 64)), "TIFF"))
    for tag in (256, 257):
        at = tiff.index(struct.pack("<HH", tag, 4))
        tiff[at + 8 : at + 12] = b"\xff\xff\xff\x7f"
    refuses(bytes(tiff), "too large")
    bmp = bytearray(encode(Image.new("RGB", (64, 64)), "BMP"))
    bmp[18:26] = b"\xff\xff\xff\x7f" * 2
    refuses(bytes(bmp), "cut short|too large")


def test_a_side_may_be_as_long_as_in_a_jpeg():
    row = zlib.compress((b"\0" + bytes(70_000)) * 16)
    long = png(png_header(70_000, 16, 8, 0), (b"IDAT", row), (b"IEND", b""))
    refuses(long, "at most 65535 px a side")


def test_byte_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(image, "MAX_BYTES", 1000)
    path = tmp_path / "a.bmp"
    path.write_bytes(encode(Image.fromarray(picture()), "BMP"))
    refuses(path, "at most 0 MB")
    refuses(path.read_bytes(), "at most 0 MB")


def test_jpeg_with_endless_scans():
    data = encode(Image.fromarray(picture()), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    refuses(data[:last] + data[last:-2] * 300 + b"\xff\xd9", "too many scans")


@pytest.mark.parametrize("progressive", [False, True])
def test_what_follows_a_jpeg_is_no_part_of_it(progressive):
    """A motion photo's film may look like scans without an end, a gain map is a second JPEG."""
    data = encode(Image.fromarray(picture()), "JPEG", progressive=progressive)
    padded = data[:-2] + bytes(99) + data[-2:]
    shown = read_image(data).pixels
    for behind in (b"\xff\xda" * 300, data, data[:-2]):
        for whole in (data, padded):
            assert np.array_equal(read_image(whole + behind).pixels, shown)
            assert read_foreign(whole + behind).width == shown.shape[1]
    with pytest.raises(ImageError, match="cut short"):
        read_foreign(data[:-2] + data)


def test_damaged_png_is_not_half_a_picture():
    data = bytearray(encode(Image.fromarray(picture()), "PNG"))
    data[len(data) // 2] ^= 0xFF
    refuses(bytes(data), "checksum")
    short = zlib.compress((b"\0" + bytes(180)) * 20)
    refuses(png(png_header(60, 44), (b"IDAT", short), (b"IEND", b"")), "damaged")


@pytest.mark.parametrize(
    ("tags", "order"),
    [
        *(({259: 33003}, "<"), ({259: 50001}, "<")),
        *(({284: 2, 338: 1}, "<"), ({284: 2, 338: 0}, "<"), ({}, ">")),
        # Colours of fewer px than brightness: read as of each, with what lies behind.
        *(({262: 6, 277: 3, 530: 0x10002}, "<"), ({262: 6, 277: 3}, "<")),
        # Gray and alpha in a plane each: read as px by turns, or called damaged.
        *(({262: 1, 277: 2, 284: 2, 338: 2, 259: kind}, "<") for kind in (1, 5, 8)),
    ],
)
def test_whole_tiffs_that_pillow_does_not_read_are_not_called_damaged(tags, order):
    pixels = np.zeros((4, 16, 16), np.uint8).tobytes()
    tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 2, 273: 400, 277: 4, 278: 16, 279: 1024, **tags}
    if order == ">":
        head, form = struct.pack(">2sHHHQQ", b"MM", 43, 8, 0, 16, len(tags)), ">HHQQ"
    else:
        head, form = struct.pack("<2sHIH", b"II", 42, 8, len(tags)), "<HHII"
    whole_number = 16 if order == ">" else 4
    entries = (struct.pack(form, tag, whole_number, 1, value) for tag, value in tags.items())
    data = (head + b"".join(entries)).ljust(400, b"\0") + pixels
    refuses(data, "this kind of TIFF is not supported")


@pytest.mark.parametrize("mode", ["F", "I"])
def test_float_and_32_bit_tiff(mode):
    refuses(encode(Image.fromarray(picture()).convert("L").convert(mode), "TIFF"), "save it")


def test_nothing_reaches_standard_error(capfd):
    for kind in FORMATS:
        data = encode(Image.fromarray(NOISE), kind)
        for start in range(20, len(data), max(1, len(data) // 40)):
            broken = bytearray(data)
            broken[start : start + 3] = b"\x13\x37\x00"
            with contextlib.suppress(ImageError):
                read_image(bytes(broken))
    assert capfd.readouterr() == ("", "")
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


GOOD = {kind: encode(Image.fromarray(picture()), kind) for kind in FORMATS}
GOOD["PROGRESSIVE"] = encode(Image.fromarray(picture()), "JPEG", progressive=True)
GOOD["ORIENTED"] = with_orientation("TIFF", 6)
GOOD["LZW"] = encode(Image.fromarray(picture()), "TIFF", compression="tiff_lzw")
GOOD["ALPHA"] = encode(Image.fromarray(picture()).convert("RGBA"), "WEBP")
GOOD["PALETTE"] = encode(Image.fromarray(picture()).quantize(9), "PNG")


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63, 2**64 - 1])
def test_bigtiff_that_points_beyond_everything(offset):
    data = b"MM\0+" + struct.pack(">HHQ", 8, 0, offset) + bytes(400)
    with pytest.raises(ImageError, match="cut short"):
        read_image(data)


@settings(max_examples=400)
@given(st.data())
def test_any_change_gives_a_picture_or_one_line(data):
    broken = bytearray(GOOD[data.draw(st.sampled_from(sorted(GOOD)))])
    for _ in range(data.draw(st.integers(0, 4))):
        # Most faults that matter are in the header.
        last = data.draw(st.sampled_from([64, len(broken) - 1]))
        at = data.draw(st.integers(0, min(last, len(broken) - 1)))
        patch = data.draw(st.binary(min_size=1, max_size=4))
        broken[at : at + len(patch)] = patch
    broken = bytes(broken[: data.draw(st.integers(0, len(broken)))])
    for read in (read_image, read_mask):
        # Anything but ImageError fails the test.
        with contextlib.suppress(ImageError):
            got = read(broken)
            shape = got.shape if read is read_mask else got.pixels.shape
            assert 256 <= shape[0] * shape[1] <= MAX_PIXELS


@settings(max_examples=400)
@given(
    st.sampled_from([data[:length] for data in GOOD.values() for length in (0, 4, 12, 40)]),
    st.binary(max_size=300),
)
def test_the_beginning_of_a_picture_and_random_bytes(start, rest):
    with contextlib.suppress(ImageError):
        read_image(start + rest)


MEMORY = """
import re, sys
from dermedge.image.read import ImageError, read_image
for path in sys.argv[1:]:
    try:
        print(read_image(path).pixels.shape)
    except ImageError as error:
        print(error)
# Not getrusage: a new process starts with the peak of the one that made it.
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is on Linux only")
def test_the_largest_pictures_stay_below_one_gigabyte(tmp_path):
    line = zlib.compressobj(1)
    body = b"".join(line.compress(bytes(1 + 3 * 8900)) for _ in range(8900)) + line.flush()
    (tmp_path / "a.png").write_bytes(png(png_header(8900, 8900), (b"IDAT", body), (b"IEND", b"")))
    Image.new("RGB", (12_000, 10_000)).save(tmp_path / "b.jpg", quality=10)
    Image.new("L", (10_000, 8_000)).save(tmp_path / "c.jpg", quality=10, progressive=True)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *sorted(map(str, tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    *shapes, peak = done.stdout.split("\n")[:-1]
    assert shapes == ["(1113, 1113, 3)", "(1250, 1500, 3)", "(1000, 1250, 3)"]
    assert int(peak) < 1000
    assert done.stderr == ""


# A TIFF of the fuzzer's, with text where a number belongs.
TEXT_FOR_A_NUMBER = zlib.decompress(
    base64.b85decode(
        "c-r&y)MA*z$iVRb#{UBhf*cGg3_8p~f(-703{HX!|8FtyFb6TXGdM9Y*fTuJ`5iu|w)xiHoH^l+>9_hfR0s3SSl4"
        "uZt9-(@Ws)E7?c%n(0+gPSR|se38{XUY=s!c4#&7nm#&7R^{j54a>y_QXx8W)lP>riLd3L?f`5pL;KWnARkN2^x^"
        "Rs~Rp(#6$S3!kWt3I>7b|?PTQIP7hwdbRLPCCD})IQ<cx_!kkt!L-?q(SZ6ynMdoGdO$au}Y{#Yi_<ra!g?L``K%"
        "2PNv`51@uPviaT>)+BdFCIhMU(^IO*&wyWiy)uhjY+Hh<ql2O&O&!o?~-TgOW@f*3TQ&qp8t6V=*=XbdCljTdRmp"
        "%tO9LP+#yAkY=O3jxM;(3*Dwt11c&2>-!s@iHZy$gR1G3lhg*Rg5o_bS)_zsb$Oz{t!1j1&ePAZCQJRe+cY$Yuu8"
        "a!d>i%usQ5AZCNIfx--ej4WU_2M~)w#X)++7@6Sah(pyd%JcxG7$IyRj%H+MPy{kmKn8)$06}2dxXs|qz`@4G&c@"
        "2Y&d$!s$-%`V!pp<W%_Au!%r7D<B`+r{B_pGtqNlE)q@ye&qhYS8V_?Y4%KG?;CoqLIh%hiz%;CL$ar*4CB>fNd?"
        ")p_1Ep4sdF8uChyYAhWtZz@BJ%91?)yGe9x4hP_TNU=@^OvvR^l}57MWr@IZtA|aX4+N{r=%$fGb3&!%BCdG?Ag$"
        "po02TqKSR={IZcA~`;VW${sRDyKpTA"
    )
)


def test_a_tiff_whose_tags_have_other_types_is_refused():
    with pytest.raises(ImageError, match="the TIFF data is damaged"):
        read_image(TEXT_FOR_A_NUMBER)


def test_a_device_without_the_decoder_of_jpeg_says_so(tmp_path, monkeypatch):
    path = tmp_path / "picture.jpg"
    Image.new("RGB", (32, 32), "gray").save(path)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(ImageError, match="simplejpeg is missing") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
