"""The one preprocessing: training, export, benchmarks and app all call `prepare`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import cv2
import numpy as np

from dermedge.image.frame import inner


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a picture before a network sees it; stored in the bundle.

    Normalization is not here: it is inside the exported graph, which takes uint8 RGB.
    """

    size: int = 256  # side of the square network input, px
    color_constancy: bool = False  # shades of gray
    minkowski_norm: int = 6  # p of shades of gray
    hair_removal: bool = False  # DullRazor type
    # Side of the square about the lesion that the network sees, in sides of the lesion's box:
    # 1 to 4; 0: the whole picture. A segmenter never crops.
    crop: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or not 16 <= self.size <= 2048:
            raise ValueError(f"preprocessing size must be 16 to 2048 px, got {self.size!r}")
        if not isinstance(self.minkowski_norm, int) or not 1 <= self.minkowski_norm <= 32:
            raise ValueError(f"minkowski_norm must be 1 to 32, got {self.minkowski_norm!r}")
        number = isinstance(self.crop, (int, float)) and not isinstance(self.crop, bool)
        if not number or not (self.crop == 0 or 1 <= self.crop <= 4):
            raise ValueError(f"crop must be 0 (whole picture) or 1 to 4, got {self.crop!r}")
        for name in ("color_constancy", "hair_removal"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes, and a bundle's manifest holds."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Raises ValueError where a key is unknown: a newer step must not be skipped silently."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown preprocessing step(s): {', '.join(unknown)}")
        return cls(**values)


@dataclass(frozen=True)
class Placement:
    """Where a picture of `height` x `width` px lies inside the square network input.

    The picture is scaled to fit, its aspect kept, and centred; the rest is black. Pixel centres
    are at half-integers: (x, y) of the picture is (x * sx + left, y * sy + top) of the input.
    Where a part was cut out of a larger picture, `height` and `width` are those of the part, and
    points are of the larger picture. Where the rest is a plain frame, `whole` is (height, width)
    of the larger picture, of which masks and maps then are, too.
    """

    height: int
    width: int
    size: int
    corner: tuple[int, int] = (0, 0)  # (x, y) of the part's first px in the larger picture
    whole: tuple[int, int] | None = None

    @property
    def scaled(self) -> tuple[int, int]:
        """(height, width) in px of the picture inside the network input."""
        scale = self.size / max(self.height, self.width)
        return (
            max(1, min(self.size, round(self.height * scale))),
            max(1, min(self.size, round(self.width * scale))),
        )

    @property
    def offset(self) -> tuple[int, int]:
        """(top, left) in px of the picture inside the network input."""
        height, width = self.scaled
        return (self.size - height) // 2, (self.size - width) // 2

    def to_model(self, points: np.ndarray) -> np.ndarray:
        """Map (N, 2) float (x, y) from picture to network input coordinates."""
        (height, width), (top, left) = self.scaled, self.offset
        inside = np.asarray(points, np.float64) - self.corner
        return inside * [width / self.width, height / self.height] + [left, top]

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """The exact inverse of `to_model`."""
        (height, width), (top, left) = self.scaled, self.offset
        inside = np.asarray(points, np.float64) - [left, top]
        return inside * [self.width / width, self.height / height] + self.corner

    def place(self, image: np.ndarray, interpolation: int | None = None) -> np.ndarray:
        """Put an (height, width[, channels]) array into a black square of `size` px."""
        if self.whole is not None and image.shape[:2] == self.whole:
            x, y = self.corner
            image = image[y : y + self.height, x : x + self.width]
        if image.shape[:2] != (self.height, self.width):
            raise ValueError(
                f"expected a picture of {self.height}x{self.width}, got {image.shape[:2]}"
            )
        (height, width), (top, left) = self.scaled, self.offset
        if interpolation is None:
            smaller = height < self.height or width < self.width
            interpolation = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        if interpolation == cv2.INTER_AREA:
            image = downsampled(image, height, width)
        out = np.zeros((self.size, self.size, *image.shape[2:]), image.dtype)
        out[top : top + height, left : left + width] = cv2.resize(
            image, (width, height), interpolation=interpolation
        )
        return out

    def place_mask(self, mask: np.ndarray) -> np.ndarray:
        """Put a bool (height, width) mask into the square: bool, a pixel set where half is."""
        return self.place(mask.astype(np.float32)) >= 0.5

    def inside(self, output: np.ndarray) -> np.ndarray:
        """What of a (size, size) map is of the picture: `scaled` px, a view."""
        (height, width), (top, left) = self.scaled, self.offset
        return output[top : top + height, left : left + width]

    def restore(self, output: np.ndarray, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Bring a float32 (size, size) map back to the picture, or to `shape` (height, width).

        Where a part was cut out, it is that part which is given back; 0 where a frame lies.
        """
        part = self.inside(output)
        if self.whole is None:
            rows, columns = shape or (self.height, self.width)
            return cv2.resize(part, (columns, rows), interpolation=cv2.INTER_LINEAR)
        out = np.zeros(self.whole, output.dtype)
        (x, y), size = self.corner, (self.width, self.height)
        out[y : y + self.height, x : x + self.width] = cv2.resize(
            part, size, interpolation=cv2.INTER_LINEAR
        )
        if shape is None or shape == self.whole:
            return out
        return cv2.resize(out, shape[::-1], interpolation=cv2.INTER_LINEAR)


def downsampled(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Halve an image while it stays at least twice as large as (height, width) px both ways.

    The mean over an area is the mean over the means of its quarters; that of exactly 2x2 px is by
    far the quickest to take. Sides that are odd are left as they are.
    """
    while True:
        rows, columns = image.shape[:2]
        if rows % 2 or columns % 2 or rows < 4 * height or columns < 4 * width:
            return image
        image = cv2.resize(image, (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)


def working(image: np.ndarray, side: int) -> np.ndarray:
    """A picture halved as far as `prepare` makes the same of it, for sizes up to `side` px."""
    height, width = image.shape[:2]
    return downsampled(image, *Placement(height, width, side).scaled)


def thumbnail(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image, halved while it is at least twice as large as (height, width) px both ways.

    Unlike `downsampled` it leaves out the last row or column of an odd side: for measures.
    """
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        even = image[: 2 * rows, : 2 * columns]
        image = cv2.resize(even, (columns, rows), interpolation=cv2.INTER_AREA)
    return image


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image at (height, width) px for measures, which need not every pixel's exact share.

    Halved first, so that little is lost to the interpolation; faster than a mean over the area.
    """
    image = thumbnail(image, height, width)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def prepare(
    image: np.ndarray,
    spec: Preprocessing,
    box: tuple[float, float, float, float] | None = None,
    framed: bool = True,
) -> tuple[np.ndarray, Placement]:
    """Turn a picture into a network input; a plain frame around it is left out.

    Parameters
    ----------
    image : uint8 (height, width, 3) RGB, as `dermedge.image.read.read_image` gives it.
    spec : the bundle's (or recipe's) preprocessing.
    box : (x, y, width, height) of the lesion, px of `image`, where `spec` crops. None: no lesion
        was found, and the whole picture is taken.
    framed : whether a frame is looked for; False where that was done, and all of `image` counts.

    Returns
    -------
    uint8 (size, size, 3) RGB, C-contiguous, and the placement that leads back to the picture.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected uint8 (height, width, 3) RGB, got {image.dtype} {image.shape}")
    height, width = image.shape[:2]
    left, top, width, height = inner(image) if framed else (0, 0, width, height)
    whole = image.shape[:2] if (height, width) != image.shape[:2] else None
    if spec.crop and box is not None:
        x, y, width, height = _window(
            height, width, (box[0] - left, box[1] - top, *box[2:]), spec.crop
        )
        left, top, whole = left + x, top + y, None
    placement = Placement(height, width, spec.size, (left, top), whole)
    square = placement.place(image[top : top + height, left : left + width])
    (height, width), (top, left) = placement.scaled, placement.offset
    inside = square[top : top + height, left : left + width]
    # Hair and colour are treated after scaling: the cost then does not grow with the camera.
    if spec.hair_removal:
        inside[:] = remove_hair(inside)
    if spec.color_constancy:
        inside[:] = shades_of_gray(inside, spec.minkowski_norm)
    return square, placement


def _window(
    height: int, width: int, box: tuple[float, float, float, float], crop: float
) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the square about a lesion's box, px, all of it in the picture.

    At the picture's border the square is moved inwards rather than cut: the network then sees as
    much skin there as elsewhere. It is cut only where it is larger than the picture.
    """
    x, y, across, down = box
    # An enlarged speck shows nothing: what is seen is at least a quarter of the shorter side.
    side = round(max(crop * max(across, down), min(height, width) / 4))
    columns, rows = min(side, width), min(side, height)
    left = round(min(max(x + across / 2 - columns / 2, 0), width - columns))
    top = round(min(max(y + down / 2 - rows / 2, 0), height - rows))
    return left, top, columns, rows


def shades_of_gray(image: np.ndarray, norm: int = 6) -> np.ndarray:
    """Colour constancy: scale each channel so that the Minkowski means of all three agree.

    Finlayson & Trezzi, "Shades of gray and colour constancy", CIC 2004; for dermoscopy with
    p = 6: Barata et al., IEEE JBHI 19(3), 2015.

    Parameters
    ----------
    image : uint8 (height, width, 3) RGB.
    norm : Minkowski p; 1 is gray world, large values approach white patch.

    Returns
    -------
    uint8 (height, width, 3). A channel that is black all over stays as it is.
    """
    # A histogram holds all that the mean of v**p needs: 256 powers instead of one a pixel.
    powers = (np.arange(256) / 255.0) ** norm
    illuminant = np.empty(3)
    for channel in range(3):
        counts = np.bincount(image[..., channel].ravel(), minlength=256)
        illuminant[channel] = (counts @ powers / counts.sum()) ** (1 / norm)
    table = np.empty((256, 1, 3), np.uint8)
    target = np.sqrt(np.mean(illuminant**2))
    for channel in range(3):
        gain = target / illuminant[channel] if illuminant[channel] > 0 else 1.0
        table[:, 0, channel] = np.clip(np.rint(np.arange(256) * gain), 0, 255)
    return cv2.LUT(image, table)


def hair_mask(image: np.ndarray) -> np.ndarray:
    """Dark, thin, long structures: bool (height, width).

    The generalized grayscale closing of DullRazor (Lee et al., Comput. Biol. Med. 27, 1997):
    line elements in four directions fill dark structures that are thinner than the line.
    """
    side = max(image.shape[:2])
    length = max(7, round(side * 0.045)) | 1
    gray = image.min(axis=2)
    difference: np.ndarray | None = None
    for element in _line_elements(length):
        closed = cv2.morphologyEx(gray, cv2.MORPH_CLOSE, element)
        gained = cv2.subtract(closed, gray)
        # A hair is filled by every direction but its own; a blob wider than the line by none.
        difference = gained if difference is None else cv2.max(difference, gained)
    assert difference is not None, "there are line elements of every length"
    candidate = (difference > 24).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(candidate, connectivity=8)
    # What survives an erosion is thicker than hair: crusts, pigment, the rim of a vignette.
    core = cv2.erode(candidate, np.ones((5, 5), np.uint8), borderValue=0)
    thick = np.bincount(labels[core > 0], minlength=count) / np.maximum(stats[:, 4], 1)
    extent = np.hypot(stats[:, 2], stats[:, 3])
    keep = (extent >= 1.6 * length) & (thick < 0.08)
    keep[0] = False
    hair = keep[labels].astype(np.uint8)
    return cv2.dilate(hair, np.ones((3, 3), np.uint8)).astype(bool)


def remove_hair(image: np.ndarray) -> np.ndarray:
    """Replace hair by its surroundings (inpainting after Telea, 2004). uint8 RGB in and out."""
    mask = hair_mask(image)
    if not mask.any():
        return image
    return cv2.inpaint(image, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA)


def _line_elements(length: int) -> list[np.ndarray]:
    middle = length // 2
    across = np.zeros((length, length), np.uint8)
    across[middle] = 1
    return [
        across,
        np.ascontiguousarray(across.T),
        np.eye(length, dtype=np.uint8),
        np.ascontiguousarray(np.fliplr(np.eye(length, dtype=np.uint8))),
    ]
