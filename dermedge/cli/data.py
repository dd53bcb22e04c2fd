"""`dermedge data`: check a data set and freeze its split."""

from __future__ import annotations

import argparse

from dermedge.cli import Command


def arguments(parser: argparse.ArgumentParser) -> None:
    from dermedge.data import check

    check.arguments(parser)


def run(args: argparse.Namespace) -> int:
    from dermedge.data import check

    return check.run(args)


DATA = Command("check a data set and freeze its split", arguments, run)
