"""What is asked of a picture file before a decoder gets it: kind, orientation, colours, and limits.

Decoders are maintained libraries; what stands here is what they lack. Every walk is bounded, so
that a hostile file costs little time: by `MAX_PARTS` steps, each over a length that the file gives.
This module has the kinds and the errors; there is a module for each family of formats.
"""

from __future__ import annotations

from dermedge import UserError

MAX_PARTS = 20_000  # segments, chunks or boxes of one file; real ones have tens

TITLES = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WebP",
    "tiff": "TIFF",
    "bmp": "BMP",
    "heic": "HEIC",
    "avif": "AVIF",
}


class ImageError(UserError, ValueError):
    """A picture that cannot be used; the message is one line that says why."""

    exit_status = 1  # the command was right, a file of it is not


def damaged(kind: str) -> ImageError:
    """The error about data that cannot be decoded, for raising."""
    return ImageError(
        "the {kind} data is damaged: copy the file again or take a new picture",
        code="image_damaged",
        kind=TITLES[kind],
    )


def cut_short(kind: str) -> ImageError:
    """The error about a file whose end is missing, for raising."""
    return ImageError(
        "the {kind} is cut short: copy the file again or take a new picture",
        code="image_cut_short",
        kind=TITLES[kind],
    )


def unusual(kind: str) -> ImageError:
    """The error about a variant of the format that is not read, for raising."""
    return ImageError(
        "this kind of {kind} is not supported: save it as RGB with 8 bits per channel",
        code="image_unsupported",
        kind=TITLES[kind],
    )


def raw() -> ImageError:
    """The error about what a sensor saw, before it is a picture, for raising."""
    return ImageError("this is a raw picture: save it as JPEG or PNG", code="image_raw")


def odd_colours() -> ImageError:
    """The error about a colour space that is not understood, for raising."""
    return ImageError(
        "the colours of this picture are of an unusual kind: save it as sRGB", code="image_colours"
    )


# What cameras write that is neither a picture for the screen nor plain TIFF: Fujifilm, Panasonic
# and Leica, Olympus (three), Canon, Sigma, Minolta, Phase One (two).
_RAW_STARTS = (
    *(b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"II\x1a\0\0\0HEAPCCDR"),
    *(b"FOVb", b"\0MRM", b"IIII", b"MMMM"),
)


# Pictures that are not read: where a mark of theirs stands, the mark, and what people call them.
_OTHERS = (
    *((0, b"GIF8", "GIF"), (0, b"8BPS", "Photoshop"), (128, b"DICM", "DICOM")),
    *((4, b"jP  \r\n", "JPEG 2000"), (0, b"\xff\x4f\xff\x51", "JPEG 2000")),
    *((4, b"JXL \r\n", "JPEG XL"), (0, b"\xff\x0a", "JPEG XL")),
)


_BMP_HEADERS = frozenset((12, 16, 40, 52, 56, 64, 108, 124))  # bytes, of OS/2 and Windows


def kind_of(data: bytes) -> str:
    """A key of TITLES, by the first bytes. Raises ImageError."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    canon = data[8:10] == b"CR" and data[:2] in (b"II", b"MM")
    if canon or data.startswith(_RAW_STARTS):
        raise raw()
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    # What lies between is "reserved": programs write their own there.
    if data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    if data[4:8] == b"ftyp":
        brands = data[8 : min(int.from_bytes(data[:4], "big"), 1000)]
        names = {brands[at : at + 4] for at in range(0, len(brands), 4)}
        if b"crx " in names:
            raise raw()
        if names & {b"avif", b"avis"}:
            return "avif"
        if names & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
            return "heic"
    for start, mark, other in _OTHERS:
        if data.startswith(mark, start):
            raise ImageError(
                "this is a {kind} picture, which is not read: save it as JPEG or PNG",
                code="image_unsupported",
                kind=other,
            )
    raise ImageError(
        "this is not a JPEG, PNG, WebP, TIFF, BMP, HEIC or AVIF picture", code="image_unsupported"
    )
