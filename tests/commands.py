"""Runs a command without its own process."""

from __future__ import annotations

import argparse


def call(command, *words) -> int:
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))
