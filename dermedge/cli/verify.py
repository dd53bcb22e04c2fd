"""`dermedge verify`: check a bundle, and what it computes here."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from dermedge.bundle.manifest import TARGETS
from dermedge.cli import Command
from dermedge.cli.options import bundle_arguments, open_bundle
from dermedge.text import printable


def arguments(parser: argparse.ArgumentParser) -> None:
    bundle_arguments(parser)
    parser.add_argument(
        "--target", choices=TARGETS, help="that the graphs must run on (default: this machine)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")


def run(args: argparse.Namespace) -> int:
    from dermedge.verify import verify

    checks = []
    for check in verify(open_bundle(args), args.target):
        checks.append(check)
        if not args.json:
            print(f"{check.verdict.upper()}  {check.name}: {printable(check.detail)}", flush=True)
    failed = any(check.verdict == "fail" for check in checks)
    if args.json:
        print(json.dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}))
    return 1 if failed else 0


VERIFY = Command("check a bundle, and what it computes here", arguments, run)
