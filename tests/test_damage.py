"""A damaged picture is refused, or read as it was; never half, never another."""

from __future__ import annotations

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from dermedge.image import decode
from dermedge.image import read as reading
from dermedge.image.colour import DISPLAY_P3, matrix_profile
from dermedge.image.header import png as png_header
from dermedge.image.read import ImageError, read_image, read_mask


def skin(width=640, height=480, seed=0) -> np.ndarray:
    """Noisy and uneven, as a photograph is: uint8 (h, w, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    smooth = np.stack([200 + 30 * x, 150 + 30 * y, 130 - 30 * x * y], 2)
    spot = np.hypot(x - 0.5, y - 0.5)[..., None] < 0.2
    return np.clip(smooth - 80 * spot + rng.normal(0, 5, smooth.shape), 0, 255).astype(np.uint8)


def encode(pixels: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    if kind == "HEIC":
        pytest.importorskip("pillow_heif").from_pillow(picture).save(buffer, quality=90)
    else:
        picture.save(buffer, kind, **options)
    return buffer.getvalue()


def refuses(data: bytes, match: str = "damaged|cut short") -> None:
    for read in (read_image, read_mask):
        with pytest.raises(ImageError, match=match) as caught:
            read(data)
        assert caught.value.code
        assert "\n" not in str(caught.value)


def coded(data: bytes) -> int:
    """Where the coded data of a JPEG begin."""
    at = data.index(b"\xff\xda")
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


JPEG = encode(skin(), "JPEG", quality=90)
RESTARTS = encode(skin(), "JPEG", quality=90, restart_marker_rows=1)
PROGRESSIVE = encode(skin(), "JPEG", quality=90, progressive=True)
JPEGS = {"baseline": JPEG, "restarts": RESTARTS, "progressive": PROGRESSIVE}


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_holes_and_zeros_in_a_jpeg(name, at):
    data = JPEGS[name]
    start = int(len(data) * at)
    refuses(data[:start] + data[start + 3000 :])
    refuses(data[:start] + bytes(3000) + data[start + 3000 :])
    refuses(data[:start])


def test_a_lost_restart_marker():
    places = [
        i
        for i in range(len(RESTARTS) - 1)
        if RESTARTS[i] == 0xFF and RESTARTS[i + 1] in range(0xD0, 0xD8)
    ]
    assert len(places) > 20
    for at in places[:: len(places) // 6]:
        refuses(RESTARTS[:at] + RESTARTS[at + 2 :])
    a, b = places[5], places[6]  # two in the wrong order
    refuses(RESTARTS[: a + 1] + RESTARTS[b + 1 : b + 2] + RESTARTS[a + 2 :])


def test_a_wrong_huffman_table():
    """Any two values of a table that change places, even where no code is then invalid."""
    rng = np.random.default_rng(0)
    at = JPEG.index(b"\xff\xc4") + 5
    for _ in range(JPEG.count(b"\xff\xc4")):
        values = at + 16
        for _ in range(5):
            first, second = rng.choice(sum(JPEG[at : at + 16]), 2, replace=False) + values
            broken = bytearray(JPEG)
            broken[first], broken[second] = broken[second], broken[first]
            refuses(bytes(broken), "damaged")
        at = JPEG.find(b"\xff\xc4", at) + 5
    # Tables made for one picture are not the usual ones, though one may have their lengths.
    own = bytearray(encode(skin(), "JPEG", optimize=True))
    assert read_image(bytes(own)).width == 640
    at = own.index(b"\xff\xc4")
    table = bytes.fromhex("0000010501010101010100000000000000") + bytes([*range(1, 12), 0])
    own[at:at] = struct.pack(">HH", 0xFFC4, 2 + len(table)) + table  # the next one replaces it
    assert read_image(bytes(own)).width == 640


def shifted(block: int, step: int) -> bytes:
    """A JPEG whose brightness differs from one block on, as after a flipped bit."""
    pixels = skin().astype(int)
    flat = np.repeat(np.repeat(np.arange(30 * 40).reshape(30, 40), 16, 0), 16, 1)
    pixels += step * (flat >= block)[..., None]
    return encode(np.clip(pixels, 0, 255).astype(np.uint8), "JPEG", quality=95)


@pytest.mark.parametrize("step", [-40, -12, 12])
@pytest.mark.parametrize("block", [135, 500, 900])
def test_a_shift_that_no_decoder_sees(block, step):
    refuses(shifted(block, step), "damaged")


def test_what_looks_like_a_shift_and_is_none():
    lines = np.random.default_rng(5).normal(0, 20, (480, 3)).astype(np.float32)
    video = skin() + cv2.resize(lines, (640, 480))[..., None]
    for picture in (
        np.clip(video, 0, 255),
        np.repeat(np.arange(640, dtype=np.uint8)[None, :, None] // 3, 480, 0).repeat(3, 2),
        np.repeat(np.arange(480, dtype=np.uint8)[:, None, None] // 2, 640, 1).repeat(3, 2),
        np.where(np.arange(480)[:, None, None] < 160, skin(), 255 - skin()),
        *(np.pad(skin(), ((48, 48), (0, 0), (0, 0)), constant_values=v) for v in (0, 128, 255)),
        np.kron(np.indices((30, 40)).sum(0) % 2, np.ones((16, 16)))[..., None].repeat(3, 2) * 200,
    ):
        read_image(encode(picture.astype(np.uint8), "JPEG", quality=80))


def test_flipped_bits_move_the_rest_of_hardly_a_picture():
    """Most single bits change a block by what nobody sees; what moves the rest is found."""
    rng = np.random.default_rng(0)
    whole = read_image(JPEG).pixels.astype(int)
    start, refused, moved = coded(JPEG), 0, 0
    for _ in range(60):
        broken = bytearray(JPEG)
        broken[rng.integers(start, len(JPEG) - 2)] ^= 1 << int(rng.integers(8))
        try:
            moved += np.abs(read_image(bytes(broken)).pixels - whole).mean() > 3
        except ImageError:
            refused += 1
    assert refused >= 12
    assert moved == 0


def test_flipped_jpeg_of_the_case_folder(real_images):
    folder = real_images and real_images.parent / "cases" / "damaged-jpeg"
    if not folder or not folder.is_dir():
        pytest.skip("the folder of cases is not here")
    assert read_image(folder / "whole.jpg").width == 900
    for name in ("hole", "zeros", "flipped"):
        with pytest.raises(ImageError, match="damaged"):
            read_image(folder / f"{name}.jpg")


def test_what_phones_write_behind_and_within_a_good_jpeg():
    whole = read_image(JPEG).pixels
    trailer = b"\0\0\0\x18ftypmp42" + bytes(5000) + b"SEFT"
    scan = bytearray(JPEG)
    scan[coded(JPEG) - 3 : coded(JPEG)] = b"\0\0\0"  # a range of coefficients: only for progressive
    for data in (
        JPEG + trailer,
        JPEG + JPEG,
        JPEG[:-2] + bytes(37) + b"\xff\xd9",  # filled up with zeros
        JPEG[:2] + b"\xff\xff\xff" + JPEG[3:],  # fill bytes before a marker
        bytes(scan),
    ):
        assert (read_image(data).pixels == whole).all()
    refuses(JPEG[:-2] + os.urandom(37).replace(b"\xff", b"\1") + b"\xff\xd9", "damaged")


@pytest.mark.parametrize("kind", ["HEIC", "AVIF", "WEBP"])
def test_zeros_in_coded_pixels(kind):
    data = encode(skin(), kind)
    assert read_image(data).width == 640
    start = int(len(data) * 0.6)
    refuses(data[:start] + bytes(600) + data[start + 600 :])


def test_a_whole_plain_picture_is_not_called_damaged_alone():
    data = encode(np.zeros((450, 600, 3), np.uint8), "WEBP", quality=100, method=0)
    refuses(data, "or shows a large plain area: copy the file again, or save it as PNG")


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_zeros_beside_coded_pixels_are_no_damage(kind):
    """What a camera leaves free for later, or a program blanked."""
    data = encode(skin(), kind)
    at = data.index(b"mdat") - 4
    size = struct.pack(">I", len(data) - at + 4000)
    assert read_image(data[:at] + size + data[at + 4 :] + bytes(4000)).width == 640


def test_zeros_in_exif_are_no_damage():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + bytes(3000)
    for kind in ("AVIF", "WEBP"):
        assert read_image(encode(skin(), kind, exif=exif)).width == 640
    # Pillow hands out other EXIF than it writes where the picture is to be turned.
    turned = Image.Exif()
    turned[274] = 6
    turned.get_ifd(0x8769)[0x927C] = bytes(3000)
    assert read_image(encode(skin(), "AVIF", exif=turned.tobytes())).height == 640


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_damage_in_a_tiff(compression):
    data = encode(skin(), "TIFF", compression=compression)
    start = len(data) // 2
    refuses(data[:start] + bytes(1000) + data[start + 1000 :])


@pytest.mark.parametrize(("free", "error"), [(True, ImageError), (False, MemoryError)])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_too_little_memory_is_no_damage(kind, free, error, monkeypatch):
    data = encode(skin(64, 48), kind)
    # What OpenCV and Pillow answer where there is none.
    monkeypatch.setattr(decode.cv2, "imdecode", lambda *_: None)
    monkeypatch.setattr("PIL.WebPImagePlugin._webp.WebPAnimDecoder", lambda _: None)
    if not free:
        monkeypatch.setattr(decode, "check_free", lambda _: decode.np.empty(1 << 60, np.uint8))
        monkeypatch.setattr(reading, "check_free", decode.check_free)
    with pytest.raises(error):
        read_image(data)


def test_bytes_that_are_not_there():
    decode.check_free(1000)
    with pytest.raises(MemoryError):
        decode.check_free(1 << 60)


def test_a_tiff_of_which_a_strip_is_missing():
    half = {**page(64, 48, 100), 278: 24}  # two strips, of which one is there
    refuses(tiff(half), "damaged")
    refuses(tiff({**page(64, 48, 100), 273: 0}), "damaged")


def test_a_png_with_too_few_rows():
    def png(rows: bytes, interlaced=0) -> bytes:
        parts = [
            (b"IHDR", struct.pack(">IIBBBBB", 60, 44, 8, 2, 0, 0, interlaced)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b))
            for k, b in parts
        )

    whole = (b"\0" + b"\x80" * 180) * 44
    assert (read_image(png(whole)).pixels == 128).all()
    for rows in (whole[:-1], whole[: 181 * 20], b"\x05" + whole[1:]):
        refuses(png(rows), "damaged")
    refuses(png(whole, 1), "damaged")  # interlaced rows are more bytes


def test_standard_error_stays_open_for_others(monkeypatch):
    """Decoding never turns file descriptor 2 away, not even for a moment."""
    turned = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "dup2", lambda *files: turned.append(files))
        for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF"):
            read_image(encode(skin(64, 48), kind))
            with pytest.raises(ImageError):
                read_image(encode(skin(64, 48), kind)[:-100])
    assert not turned


# ------------------------------------------------------------------ hostile headers


def test_headers_that_go_on_for_ever():
    end = JPEG[2:]
    refuses(b"\xff\xd8\xff\xe0\0\x02" + bytes(10_000_000) + end)
    refuses(b"\xff\xd8" + b"\xff\xfe\0\x02" * 2_000_000 + end)
    assert read_image(b"\xff\xd8" + b"\xff" * 10_000_000 + end[1:]).width == 640
    chunk = b"\0\0\0\0teXt" + struct.pack(">I", zlib.crc32(b"teXt"))
    png = encode(skin(64, 48), "PNG")
    refuses(png[:33] + chunk * 800_000 + png[33:])
    webp = encode(skin(64, 48), "WEBP")
    size = struct.pack("<I", 4 + 8 * 1_000_000 + len(webp) - 12)
    refuses(b"RIFF" + size + b"WEBP" + b"NONE\0\0\0\0" * 1_000_000 + webp[12:])
    avif = encode(skin(64, 48), "AVIF")
    refuses(avif[:32] + b"\0\0\0\x08free" * 1_000_000)


def test_what_a_header_holds_many_times_is_unpacked_once(monkeypatch):
    """PNGs of 2 MB took a minute."""

    def chunk(kind: bytes, name: bytes) -> bytes:
        body = kind + name + zlib.compress(b"no EXIF")
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

    png, unpacked, inflated = encode(skin(64, 48), "PNG"), [], png_header._inflated
    monkeypatch.setattr(
        png_header, "_inflated", lambda *part: unpacked.append(part) or inflated(*part)
    )
    notes = chunk(b"zTXt", b"Raw profile type exif\0\0")
    notes += chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0")
    notes += chunk(b"iCCP", b"icc\0\0")
    with pytest.raises(ImageError, match="colour profile"):
        read_image(png[:33] + notes * 20 + png[33:])
    assert len(unpacked) == 3


def test_tiff_directories_that_go_on_for_ever():
    loop = b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0"
    refuses(loop)
    chain = bytearray(b"II*\0\x08\0\0\0")
    while len(chain) < 5_000_000:
        chain += b"\0\0" + struct.pack("<I", len(chain) + 6)
    refuses(bytes(chain))
    refuses(b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65535) + bytes(4))


def test_an_exif_block_that_goes_on_for_ever():
    exif = b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" * 5000
    data = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif + JPEG[2:]
    assert read_image(data).width == 640


# ------------------------------------------------------------------ kinds that are not read


def tiff(*directories: dict[int, object], order="<") -> bytes:
    """A TIFF file of these directories: tag to whole number, or to bytes."""
    data = bytearray({"<": b"II*\0", ">": b"MM\0*"}[order] + bytes(4))
    link = 4
    for tags in directories:
        struct.pack_into(order + "I", data, link, len(data))
        at = len(data)
        data += bytes(2 + 12 * len(tags) + 4)
        struct.pack_into(order + "H", data, at, len(tags))
        for number, (tag, value) in enumerate(sorted(tags.items())):
            entry = at + 2 + 12 * number
            if isinstance(value, bytes):
                struct.pack_into(order + "HHII", data, entry, tag, 4, 1, len(data))
                data += value
            else:
                struct.pack_into(order + "HHII", data, entry, tag, 4, 1, value)
        link = at + 2 + 12 * len(tags)
    return bytes(data)


def page(width, height, value, **tags) -> dict[int, object]:
    pixels = bytes([value]) * (width * height)
    names = {"subfile": 254, "photometric": 262, "dng": 50706, "subdirectory": 330}
    return {
        **dict(zip((256, 257, 258, 259, 262), (width, height, 8, 1, 1), strict=True)),
        **dict(zip((273, 277, 278, 279), (pixels, 1, height, len(pixels)), strict=True)),
        **{names[name]: tag for name, tag in tags.items()},
    }


def test_the_page_that_is_no_thumbnail():
    small, large, other = page(32, 24, 10, subfile=1), page(64, 48, 20), page(80, 60, 30)
    for pages, expected in (
        ((small, large), (64, 20)),
        ((large, small), (64, 20)),
        ((small, small, other, large), (80, 30)),
        ((large, other), (64, 20)),
    ):
        picture = read_image(tiff(*pages))
        assert (picture.width, picture.pixels[0, 0, 0]) == expected
    refuses(tiff(small, small), "preview")


def test_a_page_is_not_in_the_colours_of_its_thumbnail():
    profile = matrix_profile(DISPLAY_P3)
    pixels = np.full((48, 64, 3), (200, 140, 120), np.uint8).tobytes()
    data = bytearray(
        tiff(
            {**page(32, 24, 10, subfile=1), 34675: profile},
            {**page(64, 48, 0), 262: 2, 273: pixels, 277: 3, 279: len(pixels)},
        )
    )
    # The profile is as many bytes, not one number.
    at = data.index(struct.pack("<HHI", 34675, 4, 1))
    struct.pack_into("<HI", data, at + 2, 7, len(profile))
    assert (read_image(bytes(data)).pixels == (200, 140, 120)).all()


@pytest.mark.parametrize("order", "<>")
def test_raw_pictures_are_refused_in_words(order):
    preview = page(64, 48, 10)
    inside = page(640, 480, 20, photometric=32803)
    hidden = bytearray(tiff(page(64, 48, 10, subdirectory=0), order=order))
    for data in (
        tiff(page(64, 48, 10, dng=0x01040000), order=order),
        tiff(preview, inside, order=order),
        tiff(page(64, 48, 10, photometric=34892), order=order),
        b"FUJIFILMCCD-RAW 0201" + bytes(500),
        b"IIU\0\x08\0\0\0" + bytes(500),
        b"IIRO\x08\0\0\0" + bytes(500),
        b"II*\0\x10\0\0\0CR\x02\0" + bytes(500),
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(500),
    ):
        refuses(data, "raw picture: save it as JPEG or PNG")
    # As Nikon, Sony and Pentax do: the picture of the sensor in a directory below the preview's.
    at = len(hidden)
    hidden += tiff(inside, order=order)[8:]
    directory = struct.unpack_from(order + "I", hidden, 4)[0]
    for entry in range(directory + 2, directory + 2 + 12 * 10, 12):
        if struct.unpack_from(order + "H", hidden, entry)[0] == 330:
            struct.pack_into(order + "I", hidden, entry + 8, at)
    refuses(bytes(hidden), "raw picture")


def test_tiff_kinds_that_would_be_read_wrongly():
    good = page(64, 48, 100)
    for change in ({258: 12}, {258: 16, 262: 0}, {339: 2}, {262: 8}, {259: 6}):
        refuses(tiff({**good, **change}), "save it as RGB|damaged")


def test_planes_and_tiles():
    planes = np.stack([np.full((48, 64), value, np.uint8) for value in (200, 140, 120)])
    data = encode(planes.transpose(1, 2, 0), "TIFF", tiffinfo={284: 1})
    assert (read_image(data).pixels == (200, 140, 120)).all()
    separate = bytearray(planes.tobytes())
    tags = {256: 64, 257: 48, 258: 8, 259: 1, 262: 2, 277: 3, 278: 48, 284: 2}
    built = bytearray(tiff({**tags, 273: bytes(12), 279: bytes(12)}))
    # Three offsets and three counts, of one plane each.
    start = len(built)
    built += separate
    directory = struct.unpack_from("<I", built, 4)[0]
    for entry in range(directory + 2, directory + 2 + 12 * 10, 12):
        tag, _, _, where = struct.unpack_from("<HHII", built, entry)
        if tag in (273, 279):
            struct.pack_into("<I", built, entry + 4, 3)
            values = [start + 3072 * i for i in range(3)] if tag == 273 else [3072] * 3
            struct.pack_into("<3I", built, where, *values)
    assert (read_image(bytes(built)).pixels == (200, 140, 120)).all()


@pytest.mark.parametrize("size", [(299, 224), (300, 225), (299, 225), (65, 67)])
def test_heic_of_odd_sizes(size):
    pixels = skin(*size)
    got = read_image(encode(pixels, "HEIC"))
    assert (got.width, got.height) == size == got.pixels.shape[1::-1]
    assert np.abs(got.pixels.astype(int) - pixels).mean() < 6


@pytest.mark.parametrize("bits", [10, 12])
def test_avif_of_more_than_8_bits_is_as_bright(bits):
    from PIL import features

    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    pixels = (skin(64, 48).astype(np.uint16) << (bits - 8))[..., ::-1]
    done, data = cv2.imencode(".avif", pixels, [cv2.IMWRITE_AVIF_DEPTH, bits])
    if not done:
        pytest.skip("this OpenCV writes no AVIF")
    assert np.abs(read_image(data.tobytes()).pixels.astype(int) - skin(64, 48)).mean() < 8


def with_properties(data: bytes, *added: bytes) -> bytes:
    """An AVIF as Pillow writes it, with more boxes that say how its picture is turned."""
    parts, start = bytearray(data), data.index(b"mdat") + 4
    count = data.index(b"ipma") + 14
    number = sum(data.count(name) for name in (b"ispe", b"pixi", b"av1C", b"colr"))
    links = bytes(range(0x81 + number, 0x81 + number + len(added)))
    listed = b"".join(struct.pack(">I", 4 + len(box)) + box for box in added)
    parts[count] += len(added)
    for name, content in ((b"ipma", links), (b"ipco", listed)):
        at = parts.index(name) - 4
        (size,) = struct.unpack_from(">I", parts, at)
        parts[at + size : at + size] = content
        for outer in {name, b"iprp", b"meta"}:
            at = parts.index(outer) - 4
            (size,) = struct.unpack_from(">I", parts, at)
            struct.pack_into(">I", parts, at, size + len(content))
    moved = struct.pack(">I", parts.index(b"mdat") + 4)
    return bytes(parts.replace(struct.pack(">I", start), moved))


TURN, MIRROR = b"irot\1", b"imir\1"  # a quarter to the left; left and right change places
CROP = b"clap" + struct.pack(">IIIIiIiI", 40, 1, 30, 1, 16, 2, -10, 2)  # from (20, 4) on


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ((MIRROR, TURN), lambda whole: np.rot90(whole[:, ::-1])),
        ((TURN, MIRROR), lambda whole: np.rot90(whole)[:, ::-1]),
        ((CROP,), lambda whole: whole[4:34, 20:60]),
        ((CROP, TURN), lambda whole: np.rot90(whole[4:34, 20:60])),
    ],
)
def test_an_avif_is_turned_and_cropped_as_it_says(boxes, expected):
    data = encode(skin(64, 48), "AVIF")
    got = read_image(with_properties(data, *boxes))
    assert (got.pixels == expected(read_image(data).pixels)).all()
    assert (got.height, got.width) == got.pixels.shape[:2]


def test_an_avif_that_is_turned_needs_no_more_memory():
    """One of 35 megapixels, upright by a turn, was refused."""
    data = encode(skin(64, 48), "AVIF")
    plain, turned = (decode.open_picture(it) for it in (data, with_properties(data, TURN)))
    assert turned.extra_bytes == plain.extra_bytes


@pytest.mark.parametrize(
    "numbers", [(40, 1, 30, 1, 80, 2, 0, 2), (40, 0, 30, 1, 0, 2, 0, 2), (0, 1, 0, 1, 0, 2, 0, 2)]
)
def test_an_avif_that_is_cropped_to_what_is_not_there(numbers):
    data = encode(skin(64, 48), "AVIF")
    cropped = with_properties(data, b"clap" + struct.pack(">IIIIiIiI", *numbers))
    refuses(cropped, "damaged|too small")


@pytest.mark.parametrize(
    "turn",
    [
        b'<rdf:Description tiff:Orientation="6"/>',
        b"<rdf:Description tiff:Orientation = '6'/>",
        b"<tiff:Orientation>\n 6\n</tiff:Orientation>",
    ],
)
def test_xmp_tells_the_turn_where_exif_does_not(turn):
    xmp = b"<x:xmpmeta>" + turn + b"</x:xmpmeta>"
    for kind in ("JPEG", "WEBP", "AVIF", "TIFF"):
        options = {"tiffinfo": {700: xmp}} if kind == "TIFF" else {"xmp": xmp}
        got = read_image(encode(skin(64, 48), kind, **options))
        assert (got.width, got.height) == (48, 64) == got.pixels.shape[1::-1]
