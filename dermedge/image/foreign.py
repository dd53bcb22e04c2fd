"""Pictures that somebody else decodes, such as a browser: what is checked before and after."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from dermedge.image import header as headers
from dermedge.image.decode import check_size
from dermedge.image.header import boxes
from dermedge.image.header.jpeg import read_jpeg
from dermedge.image.header.png import read_png
from dermedge.image.header.tiff import taken_on
from dermedge.image.jpeg import is_shifted
from dermedge.image.pixels import NO_PROFILE, profile_of_picture
from dermedge.image.read import WORKING_SIDE, Picture, halved, load, reduction


@dataclass(frozen=True)
class Foreign:
    """A picture's file whose pixels somebody else decodes, such as a browser.

    width, height : px upright. factor : 1, 2, 4 or 8, by which the pixels are to be halved, as
    `read_image` does. block : (height, width) in px of a JPEG's unit of coding, (0, 0) of others.
    taken : when a camera's file says that it was taken.
    """

    kind: str
    width: int
    height: int
    factor: int
    block: tuple[int, int]
    taken: datetime | None

    def picture(self, pixels: np.ndarray, halved: bool = False) -> Picture:
        """From upright uint8 (height, width, 3) sRGB, reduced by `factor`.

        halved : the decoder reduced a JPEG itself, as ours does; else it was `halve`.
        Raises ImageError where they are of another size, or show damage.
        """
        sides = tuple(-(-side // self.factor) for side in (self.height, self.width))
        if pixels.shape != (*sides, 3):
            raise headers.unusual(self.kind)
        # Where the units of coding lie whole.
        if all(self.block) and (halved or self.factor == 1):
            height, width = (max(1, side // self.factor) for side in self.block)
            if is_shifted(pixels, height, width):
                raise headers.damaged("jpeg")
        return Picture(pixels, self.height, self.width)

    def halve(self, pixels: np.ndarray) -> np.ndarray:
        """Rows of upright pixels at the reduced size, as many as `factor` divides, or all."""
        return halved(pixels, self.factor)


def read_foreign(data: bytes, working_side: int | None = WORKING_SIDE) -> Foreign:
    """Check a picture's file before a decoder other than ours sees it.

    What the decoder says of damage is not known here: a JPEG must end as one, the rest is checked
    as far as `read_image` does before it decodes.

    Raises
    ------
    ImageError : as `read_image`; also for CMYK, TIFF and a WebP that says how it is to be turned,
        which browsers read each in its own way.
    """
    data = load(data)
    kind = headers.kind_of(data)
    orientation, block, exif = 1, (0, 0), b""
    if kind == "jpeg":
        jpeg = read_jpeg(data)
        if jpeg.channels == 4:
            raise headers.unusual(kind)
        if not jpeg.whole:
            raise headers.cut_short(kind)
        width, height, block = jpeg.width, jpeg.height, jpeg.block
        orientation, exif = jpeg.orientation or 1, jpeg.exif
        # Turned pixels have their units of coding elsewhere.
        if orientation != 1:
            block = (0, 0)
    elif kind == "png":
        png = read_png(data)
        width, height, orientation = png.width, png.height, png.orientation or 1
        png.bare()
        profile_of_picture(NO_PROFILE if png.profile is None else png.profile, png.colours)
    elif kind == "webp":
        webp = boxes.read_webp(data)
        width, height, exif = webp.width, webp.height, webp.exif
        if (webp.orientation or 1) != 1:  # which some browsers follow, and others do not
            raise headers.ImageError(
                "the browser cannot read this picture as its file describes it: save it as JPEG",
                code="image_unsupported",
            )
        boxes.check_zeros(data, kind, webp.media, 1024 if webp.lossless else 256)
    else:
        raise headers.unusual(kind)
    check_size(kind, width, height)
    if orientation >= 5:
        width, height = height, width
    factor = reduction(max(width, height), working_side)
    return Foreign(kind, width, height, factor, block, taken_on(exif))
