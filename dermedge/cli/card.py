"""`dermedge card`: the printed card that gives a lesion's size."""

from __future__ import annotations

import argparse
from pathlib import Path

from dermedge import UserError
from dermedge.cli import Command
from dermedge.lesion.scale import PAPERS
from dermedge.text import printable


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, metavar="FILE.pdf", help="a page to print")
    parser.add_argument("--paper", choices=tuple(PAPERS), default="a4", help="(default: a4)")


def run(args: argparse.Namespace) -> int:
    from dermedge.lesion.scale import write_card

    if Path(args.out).suffix.lower() != ".pdf":
        raise UserError(f"--out {args.out}: the card is a PDF, end its name with .pdf")
    write_card(args.out, args.paper)
    print(
        f"written: {printable(args.out)}; print it at 100 % (actual size) and check its 50 mm line"
    )
    return 0


CARD = Command("make the printed card that gives a lesion's size", arguments, run, "app")
