"""Colour profiles: a picture shows the same colours in whatever space its file writes them."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms

from dermedge.image.colour import ADOBE_GAMMA, ADOBE_RGB, DISPLAY_P3, PROPHOTO, matrix_profile
from dermedge.image.header.boxes import read_iso
from dermedge.image.header.colours import Colours
from dermedge.image.read import ImageError, read_image, read_mask

SKIN = (200, 140, 120)  # sRGB
# The same colour in other spaces, by the formulas of their standards, in 8 bits.
SPACES = {
    "p3": (matrix_profile(DISPLAY_P3), (191, 143, 124)),
    "adobe": (matrix_profile(ADOBE_RGB, ADOBE_GAMMA), (184, 139, 120)),
    "prophoto": (matrix_profile(PROPHOTO, 1.8), (156, 127, 104)),
    # Red and green change places: what ignores the profile cannot be right by chance.
    "swapped": (
        matrix_profile((0.3127, 0.3290, 0.30, 0.60, 0.64, 0.33, 0.15, 0.06)),
        (140, 200, 120),
    ),
}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def plain(colour, mode="RGB") -> Image.Image:
    return Image.new(mode, (48, 40), colour)


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    if kind == "HEIC":
        heif = pytest.importorskip("pillow_heif").from_pillow(picture)
        heif.save(buffer, quality=95, **options)
    else:
        if kind in ("JPEG", "WEBP", "AVIF"):
            options.setdefault("quality", 95)
        picture.save(buffer, kind, **options)
    return buffer.getvalue()


def middle(data: bytes) -> np.ndarray:
    return read_image(data).pixels[20, 24].astype(int)


def shows(data: bytes, colour=SKIN, within: int = 2) -> bool:
    return np.abs(middle(data) - colour).max() <= within


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIC", "AVIF"])
def test_every_space_in_every_kind(kind, space):
    profile, stored = SPACES[space]
    data = encode(plain(stored), kind, icc_profile=profile)
    # What JPEG and its like round, a wide space makes larger.
    coarse = kind in ("HEIC", "AVIF") or (kind == "JPEG" and space == "prophoto")
    assert shows(data, within=3 if coarse else 2)
    with pytest.raises(ImageError, match="one colour"):  # nothing is drawn in it
        read_mask(data)


def test_equal_to_little_cms_all_over():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (600, 500, 3), np.uint8)
    for profile, _ in SPACES.values():
        data = encode(Image.fromarray(pixels), "PNG", icc_profile=profile)
        opened = Image.open(io.BytesIO(data))
        expected = ImageCms.profileToProfile(
            opened, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        assert (read_image(data).pixels == np.asarray(expected)).all()


def test_srgb_stays_bit_for_bit():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (60, 50, 3), np.uint8))
    for profile in (SRGB, matrix_profile((0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06))):
        assert (read_image(encode(picture, "PNG", icc_profile=profile)).pixels == picture).all()


def test_a_reduced_picture_is_converted():
    profile, stored = SPACES["p3"]
    for kind in ("JPEG", "PNG"):
        data = encode(plain(stored).resize((800, 600)), kind, icc_profile=profile)
        pixels = read_image(data, 100).pixels
        assert max(pixels.shape) == 100
        assert np.abs(pixels.astype(int) - SKIN).max() <= 2


def test_transparent_parts_are_white_in_every_space():
    profile, stored = SPACES["adobe"]
    picture = plain((*stored, 255), "RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 10, 40))
    for kind in ("PNG", "TIFF"):
        pixels = read_image(encode(picture, kind, icc_profile=profile)).pixels
        assert (pixels[:, :10] == 255).all()
        assert np.abs(pixels[20, 24].astype(int) - SKIN).max() <= 2


def test_palette_with_a_profile():
    profile, stored = SPACES["p3"]
    data = encode(plain(stored).quantize(2), "PNG", icc_profile=profile)
    assert shows(data)


def gray_profile(gamma: float) -> bytes:
    """ICC.1:2001-04, of one curve."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    curve = struct.pack(">4s4xIHxx", b"curv", 1, round(gamma * 256))
    described = b"desc" + bytes(4) + struct.pack(">I", 2) + b"g\0" + bytes(78 + 2)
    parts = [(b"desc", described), (b"wtpt", white), (b"kTRC", curve)]
    table, body = b"", b""
    for tag, part in parts:
        table += struct.pack(">4sII", tag, 132 + 12 * len(parts) + len(body), len(part))
        body += part
    head = struct.pack(
        ">I4xI4s4s4s12s4s40x3i48x", 132 + len(table) + len(body), 0x02400000, b"mntr", b"GRAY",
        b"XYZ ", bytes(12), b"acsp", 63190, 65536, 54061,
    )[:128]  # fmt: skip
    return head + struct.pack(">I", len(parts)) + table + body


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_gray_profiles(kind):
    data = encode(plain(100, "L"), kind, icc_profile=gray_profile(1.0))
    # Linear light of 100 / 255 in sRGB.
    assert shows(data, 169)
    assert shows(encode(plain(100, "L"), kind, icc_profile=SRGB), 100)
    # Gray samples are equal parts of a space of colours.
    assert shows(encode(plain(100, "L"), kind, icc_profile=SPACES["prophoto"][0]), 118)


def test_16_bits_with_a_profile():
    profile, stored = SPACES["p3"]
    row = b"\0" + np.tile(np.uint16(stored) * 257, 40).astype(">u2").tobytes()
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 40, 40, 16, 2, 0, 0, 0)),
        (b"iCCP", b"p3\0\0" + zlib.compress(profile)),
        (b"IDAT", zlib.compress(row * 40)),
        (b"IEND", b""),
    ]
    assert shows(png(*chunks))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG of skin colour with one more chunk behind its header."""
    data = encode(plain(SKIN), "PNG")
    return data[:33] + png((kind, body))[8:] + data[33:]


@pytest.mark.parametrize(
    "profile", [b"", b"x" * 300, SPACES["p3"][0][:400], SPACES["p3"][0].replace(b"RGB ", b"CMYK")]
)
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP"])
def test_a_broken_profile_is_refused(kind, profile):
    data = encode(plain(SKIN), kind, icc_profile=profile or b"\0" * 200)
    with pytest.raises(ImageError, match="save it as sRGB") as caught:
        read_image(data)
    assert caught.value.code == "image_colours"


def test_a_profile_beyond_the_end_of_a_tiff_is_refused():
    data = encode(plain(SKIN), "TIFF", icc_profile=SPACES["p3"][0])
    at = data.index(struct.pack("<HH", 34675, 7)) + 4
    with pytest.raises(ImageError, match="save it as sRGB"):
        read_image(data[:at] + struct.pack("<I", len(data)) + data[at + 4 :])


def test_a_profile_of_which_a_part_is_missing_is_refused():
    data = encode(plain(SKIN), "JPEG", icc_profile=SPACES["p3"][0] + bytes(70_000))
    second = data.rindex(b"ICC_PROFILE\0") - 4
    (length,) = struct.unpack_from(">H", data, second + 2)
    with pytest.raises(ImageError, match="save it as sRGB"):
        read_image(data[:second] + data[second + 2 + length :])


def test_a_broken_profile_in_a_png():
    with pytest.raises(ImageError, match="save it as sRGB"):
        read_image(with_chunk(b"iCCP", b"p\0\0" + zlib.compress(SPACES["p3"][0])[:-9]))
    bomb = zlib.compress(bytes(40_000_000))
    with pytest.raises(ImageError, match="save it as sRGB"):
        read_image(with_chunk(b"iCCP", b"p\0\0" + bomb))


def test_colours_that_a_png_names():
    # ITU-T H.273: primaries 12 are Display P3, transfer 13 is sRGB's; 16 is PQ, of HDR.
    data = encode(plain(SPACES["p3"][1]), "PNG")
    assert shows(data[:33] + png((b"cICP", bytes([12, 13, 0, 1])))[8:] + data[33:])
    assert shows(with_chunk(b"cICP", bytes([1, 13, 0, 1])), within=0)
    # What cICP says counts, not the profile for those who do not know it.
    profile = png((b"iCCP", b"p\0\0" + zlib.compress(SPACES["p3"][0])))[8:]
    srgb = with_chunk(b"cICP", bytes([1, 13, 0, 1]))
    assert shows(srgb[:33] + profile + srgb[33:], within=0)
    hdr = with_chunk(b"cICP", bytes([9, 16, 0, 1]))
    for data in (hdr, hdr[:33] + profile + hdr[33:]):
        with pytest.raises(ImageError, match="save it as sRGB"):
            read_image(data)


def test_gamma_and_chromaticities_of_a_png():
    srgb = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    for kind, body in (
        (b"gAMA", struct.pack(">I", 45455)),
        (b"cHRM", struct.pack(">8I", *srgb)),
        (b"sRGB", b"\0"),
    ):
        assert shows(with_chunk(kind, body), within=0)
    for kind, body in (
        (b"gAMA", struct.pack(">I", 100000)),
        (b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in DISPLAY_P3))),
    ):
        with pytest.raises(ImageError, match="save it as sRGB"):
            read_image(with_chunk(kind, body))


@pytest.mark.parametrize(
    ("primaries", "transfer", "stored"),
    [
        (12, 13, SPACES["p3"][1]),
        (1, 13, SKIN),
        (1, 4, SKIN),
        (5, 6, (198, 140, 120)),
        (6, 6, (203, 139, 120)),
    ],
)
def test_colours_that_a_heic_names(primaries, transfer, stored):
    """PAL's and NTSC's are those of programs that code as television did."""
    data = encode(
        plain(stored), "HEIC", color_primaries=primaries, transfer_characteristics=transfer
    )
    assert shows(data, within=3)
    hdr = encode(plain(stored), "HEIC", color_primaries=9, transfer_characteristics=16)
    with pytest.raises(ImageError, match="save it as sRGB"):
        read_image(hdr)


def test_colours_that_an_avif_names():
    data = encode(plain(SPACES["p3"][1]), "AVIF")
    at = data.index(b"colrnclx") + 8
    named = data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :]
    assert shows(named, within=3)
    with pytest.raises(ImageError, match="save it as sRGB"):
        read_image(data[:at] + struct.pack(">HH", 9, 16) + data[at + 4 :])


@pytest.mark.parametrize("kind", ["AVIF", "HEIC"])
def test_colours_of_a_gain_map_are_not_those_of_its_picture(kind):
    """A phone's HDR picture names both; it was refused as of unusual colours."""
    data = encode(plain(SKIN), kind)
    hdr = struct.pack(">I8s3HB", 19, b"colrnclx", 9, 16, 9, 0x80)
    pixels = struct.pack(">I", data.index(b"mdat") + 4)
    mended = bytearray(data.replace(pixels, struct.pack(">I", data.index(b"mdat") + 4 + len(hdr))))
    for box in (b"meta", b"iprp", b"ipco"):
        at = data.index(box) - 4
        (size,) = struct.unpack_from(">I", data, at)
        struct.pack_into(">I", mended, at, size + len(hdr))
    mended[at + size : at + size] = hdr  # in the last of them
    assert shows(bytes(mended), within=3)


def test_the_list_of_a_pictures_properties_ends_where_its_box_does():
    """It was read on to the end of the file, for each of thousands of such boxes."""

    def box(name: bytes, *content: bytes) -> bytes:
        body = b"".join(content)
        return struct.pack(">I4s", 8 + len(body), name) + body

    named = [box(b"colr", b"nclx", struct.pack(">HH", *pair)) for pair in ((9, 16), (1, 13))]
    listed = box(b"ipma", struct.pack(">II", 0, 0xFFFFFFFF))
    # As entries of that list, what follows would give picture 1 the first of the colours.
    behind = box(b"free", bytes(112), struct.pack(">HBB", 1, 1, 1))
    properties = box(b"iprp", box(b"ipco", *named), listed)
    data = box(b"meta", bytes(4), box(b"pitm", bytes(4), b"\0\1"), properties)
    assert read_iso(data + behind, "heic").colours == {Colours(9, 16), Colours(1, 13)}


def test_exif_may_say_adobe_rgb():
    def jpeg(space: int, index: str | None) -> bytes:
        exif = Image.Exif()
        photo = exif.get_ifd(0x8769)
        photo[0xA001] = space
        if index:
            photo[0xA005] = {1: index}
        return encode(plain(SPACES["adobe"][1]), "JPEG", exif=exif.tobytes(), subsampling=0)

    assert shows(jpeg(0xFFFF, "R03"))
    assert shows(jpeg(2, None))
    assert shows(jpeg(1, "R98"), SPACES["adobe"][1])
    assert shows(jpeg(0xFFFF, "R98"), SPACES["adobe"][1])


def test_cmyk_without_a_profile_is_read_as_pillow_does():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (64, 48, 4), np.uint8)).convert("CMYK")
    for kind, within in (("JPEG", 3), ("TIFF", 0)):
        data = encode(picture.resize((480, 640)), kind)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        assert np.abs(read_image(data).pixels - expected).max() <= within


def test_threads_share_a_profile():
    data = [encode(plain(stored), "PNG", icc_profile=p) for p, stored in SPACES.values()] * 30
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(shows, data))


def test_patches_of_the_case_folder(real_images):
    folder = real_images and real_images.parent / "cases" / "icc-profile-ignored"
    if not folder or not folder.is_dir():
        pytest.skip("the folder of cases is not here")
    for path in sorted(folder.glob("patch-*")):
        assert np.abs(read_image(path).pixels[30:34, 30:34].astype(int) - SKIN).max() <= 2, path
