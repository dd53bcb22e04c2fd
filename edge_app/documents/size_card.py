"""The printed size card in the app's language."""

from __future__ import annotations

from dermedge import DISCLAIMER
from dermedge.lesion.scale import PAPERS
from dermedge.lesion.scale.size_marker import HOW, TITLE_AT, draw_card
from edge_app.documents.page import Page
from edge_app.i18n.language import _

SIDE = 25.0  # mm beside the words


def size_card(paper: str) -> bytes:
    """The card as `dermedge card` makes it, a PDF page of `paper`, one of PAPERS."""
    width, _height = PAPERS[paper]
    page = Page(paper=PAPERS[paper])
    page.pdf.set_title(_("Size card"))
    y, wide = draw_card(page.pdf, width), width - 2 * SIDE
    x = page.left(SIDE, wide)  # centred on any paper, from whichever side lines begin
    page.text(x, TITLE_AT, wide, _("Size card"), 16, bold=True, align="C")
    for words in (*HOW, DISCLAIMER):
        y += page.text(x, y, wide, _(words), 10, align="C") + 5
    return bytes(page.pdf.output())
