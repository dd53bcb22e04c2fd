"""How large a picture's pixels are, by a known thing in it: printed card, coin or ruler.

The thing lies on the skin beside the lesion; its plane is taken for that of the lesion. A coin's
face lies its thickness above the skin, which makes it about 1 % too large at 15 cm. Where a thing
is not found beyond doubt nothing is said: a wrong size is worse than none.
"""

from __future__ import annotations

import numpy as np

from dermedge.lesion.scale.coin import COINS, find_coin
from dermedge.lesion.scale.plane import Scale, ScaleError
from dermedge.lesion.scale.ruler import find_ruler
from dermedge.lesion.scale.size_marker import (
    CARD,
    HOLE,
    PAPERS,
    find_card,
    marker_cells,
    write_card,
)

__all__ = ["CARD", "COINS", "HOLE", "LEAST_PX_PER_MM", "MOST_PX_PER_MM", "PAPERS", "REFERENCES"]
__all__ += ["Scale", "ScaleError", "find", "marker_cells", "write_card"]

LEAST_PX_PER_MM, MOST_PX_PER_MM = 0.01, 100_000  # of a whole picture
REFERENCES = ("card", "ruler", *(f"coin-{kind}" for kind in COINS))


def find(pixels: np.ndarray, reference: str) -> Scale:
    """The scale of uint8 (h, w, 3) RGB by one of REFERENCES; ScaleError where it is not sure."""
    if reference not in REFERENCES:
        raise ScaleError(
            "no reference '{name}'; there are: {names}",
            code="reference",
            name=reference,
            names=", ".join(REFERENCES),
        )
    if reference == "card":
        return find_card(pixels)
    if reference == "ruler":
        return find_ruler(pixels)
    return find_coin(pixels, reference, COINS[reference.removeprefix("coin-")])
