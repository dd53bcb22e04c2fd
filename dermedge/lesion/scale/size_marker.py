"""The printed size marker (`dermedge card`): a square of paper with a hole, four ArUco markers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dermedge import DISCLAIMER
from dermedge.lesion.scale.plane import Scale, ScaleError, check_tilt, slope

CARD = 64.0  # mm, side
HOLE = 15.0  # mm, radius about the card's middle
MARKER, MARGIN = 14.0, 3.0  # mm, side of a marker and its distance from the card's edge
IDS = (7, 19, 23, 41)  # of the markers, clockwise from the upper left
PAPERS = {"a4": (210.0, 297.0), "letter": (215.9, 279.4)}  # mm
TITLE_AT = 28.0  # mm from the top of the page
# What is printed below the card; the app prints it in its language.
HOW = (
    "This line must be 50 mm long. If it is not, print again at 100 % (actual size).",
    "Cut along both dashed lines. Lay the card flat upon the skin, the lesion in the round hole, "
    "and take the picture from straight above with all four squares in it. Take a new card for "
    "each person.",
)


def marker_corners() -> np.ndarray:
    """Float (4, 4, 2): corners of each marker in mm on the card, clockwise from the upper left."""
    near, far = MARGIN, CARD - MARGIN - MARKER
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * MARKER
    return np.array([square + at for at in ((near, near), (far, near), (far, far), (near, far))])


def marker_cells() -> list[tuple[float, float, float]]:
    """Black squares of the markers: left, top and side in mm on the card."""
    cell = MARKER / 6
    return [
        (corners[0][0] + column * cell, corners[0][1] + row * cell, cell)
        for number, corners in zip(IDS, marker_corners(), strict=True)
        for row, column in np.argwhere(
            cv2.aruco.generateImageMarker(_dictionary(), number, 6) == 0
        ).tolist()
    ]


def write_card(path: str | Path, paper: str = "a4") -> None:
    """Write the card as a PDF page of `paper` ('a4' or 'letter') in its true size; needs fpdf2."""
    from fpdf import FPDF

    from dermedge.files import write_atomic

    width, _height = PAPERS[paper]
    pdf = FPDF(unit="mm", format=PAPERS[paper])
    pdf.set_title("dermedge size card")
    pdf.add_page()
    below = draw_card(pdf, width)
    pdf.set_font("Helvetica", "B", 16)
    pdf.set_xy(25, TITLE_AT)
    pdf.cell(width - 50, 8, "dermedge size card", align="C")
    pdf.set_font("Helvetica", "", 10)
    pdf.set_xy(25, below)
    pdf.multi_cell(width - 50, 5, "\n\n".join((*HOW, DISCLAIMER)), align="C")
    write_atomic(path, bytes(pdf.output()))


def draw_card(pdf: Any, width: float) -> float:
    """Draw the card and its line of 50 mm on a page so wide, in mm; where words may begin below.

    `pdf` : a page of fpdf2, in mm.
    """
    from fpdf import ViewerPreferences

    # Printers shrink pages to their margins unless the file asks them not to.
    pdf.viewer_preferences = ViewerPreferences(print_scaling="None")
    pdf.set_fill_color(0)
    pdf.set_draw_color(0)
    left, top = (width - CARD) / 2, 60.0
    for x, y, side in marker_cells():
        # A hair wider than the cell, so that no white line shows between two of them.
        pdf.rect(left + x, top + y, side + 0.01, side + 0.01, style="F")
    pdf.set_line_width(0.1)
    pdf.set_dash_pattern(dash=1, gap=1)
    pdf.rect(left, top, CARD, CARD)
    pdf.circle(left + CARD / 2, top + CARD / 2, HOLE)
    pdf.set_dash_pattern()
    ruled = top + CARD + 14
    pdf.set_line_width(0.2)
    pdf.line(width / 2 - 25, ruled, width / 2 + 25, ruled)
    for x in (-25, 25):
        pdf.line(width / 2 + x, ruled - 2, width / 2 + x, ruled + 2)
    return ruled + 4


def _dictionary() -> cv2.aruco.Dictionary:
    return cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)


def find_card(pixels: np.ndarray) -> Scale:
    options = cv2.aruco.DetectorParameters()
    options.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    detected, numbers, _ = cv2.aruco.ArucoDetector(_dictionary(), options).detectMarkers(gray)
    places = dict(zip(IDS, marker_corners(), strict=True))
    seen: dict[int, np.ndarray] = {}
    ids = [] if numbers is None else [int(number) for number in np.ravel(numbers)]
    for corners, number in zip(detected, ids):  # noqa: B905
        if number in seen:
            raise ScaleError("two size cards are in the picture: show one")
        if number in places:
            seen[number] = corners[0].astype(np.float64)
    if len(seen) < 3:
        raise ScaleError(
            "{seen} of the size card's four squares were found: lay the whole card flat about "
            "the lesion, in focus",
            code="card",
            seen=len(seen),
        )
    card = np.concatenate([places[number] for number in seen])
    image = np.concatenate(list(seen.values()))
    from_mm, _ = cv2.findHomography(card, image)
    projected = cv2.perspectiveTransform(card.reshape(-1, 1, 2), from_mm)[:, 0]
    side = np.sqrt(abs(np.linalg.det(slope(from_mm, (CARD / 2, CARD / 2))))) * MARKER
    if np.sqrt(((projected - image) ** 2).sum(axis=1).mean()) > max(0.5, 0.02 * side):
        raise ScaleError("the size card is bent: lay it flat")
    check_tilt(slope(from_mm, (CARD / 2, CARD / 2)))
    outer = np.array([[0, 0], [CARD, 0], [CARD, CARD], [0, CARD]])
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    inner = CARD / 2 + HOLE * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    cover = np.zeros(gray.shape, np.uint8)
    for shape, value in ((outer, 1), (inner, 0)):
        points = cv2.perspectiveTransform(shape.reshape(-1, 1, 2).astype(np.float64), from_mm)
        cv2.fillPoly(cover, [np.rint(points).astype(np.int32)], value)
    return Scale("card", np.linalg.inv(from_mm), cover > 0)
