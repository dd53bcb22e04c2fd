"""The subcommand `dermedge engine`: builds TensorRT engines for this machine, and lists them."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import PRECISIONS, ROLES, Variant
from dermedge.cli import Command, one_line
from dermedge.cli.options import bundle_arguments, open_bundle
from dermedge.runtime import ENGINES, SessionError
from dermedge.text import printable

if TYPE_CHECKING:
    from dermedge.runtime.engine_cache import Engine

TARGET = "tensorrt"


def _arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(required=True, metavar="build | list")
    build = actions.add_parser("build", help="build the engines of a bundle's networks")
    bundle_arguments(build)
    build.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        help="only these; each network must have them (default: all that it has for TensorRT)",
    )
    build.add_argument(
        "--provider",
        choices=ENGINES,
        help=f"which TensorRT (default: the first that is installed of {', '.join(ENGINES)})",
    )
    out = "folder of the engines (default: DERMEDGE_ENGINES, or dermedge/engines in your cache)"
    build.add_argument("--out", type=Path, metavar="DIR", help=out)
    build.set_defaults(action=_build)
    listing = actions.add_parser("list", help="the engines there are, and which run here")
    listing.add_argument("--out", type=Path, metavar="DIR", help=out)
    listing.set_defaults(action=_list)


def _run(args: argparse.Namespace) -> int:
    action: Callable[[argparse.Namespace], int] = args.action
    return action(args)


def _build(args: argparse.Namespace) -> int:
    from dermedge.runtime.engine_cache import build_engine, folder

    provider = _installed((args.provider,) if args.provider else ENGINES)
    bundle = open_bundle(args)
    out = args.out or folder()
    failed = 0
    for variant, roles in _graphs(bundle, args.precision).items():
        try:
            engine = build_engine(bundle, variant, roles, provider, out)
        except SessionError as error:
            failed += 1
            print(f"{' and '.join(roles)} {variant.precision}: {one_line(error)}", flush=True)
            continue
        took = "up to date" if engine.seconds is None else f"built in {engine.seconds:.1f} s"
        print(f"{_described(engine)}, {took}", flush=True)
    print(f"in {printable(out)}")
    if not _searched(out):
        words = f"DERMEDGE_ENGINES={shlex.quote(str(out.resolve()))}"
        print(f"where the networks are to run by them, set {printable(words)}")
    return 1 if failed else 0


def _searched(out: Path) -> bool:
    """Whether engines are loaded from this folder."""
    from dermedge.runtime.engine_cache import folder

    try:
        return out.resolve() == folder().resolve()
    except SessionError:  # there is no folder
        return False


def _list(args: argparse.Namespace) -> int:
    from dermedge.runtime.engine_cache import Engine, engines, folder, misfit

    where = args.out or folder()
    try:
        entries = list(engines(where))
    except FileNotFoundError:
        if args.out:
            raise
        entries = []  # none was built here yet
    for path, engine in entries:
        if not isinstance(engine, Engine):
            print(f"{printable(path.name)}: cannot be used, {printable(engine)}")
            continue
        reason = misfit(engine.header.key)
        fits = f"does not run here: {reason}" if reason else "runs here"
        device = engine.header.key.device
        print(printable(f"{engine.header.name}: {_described(engine)}, {device}, {fits}"))
    print(f"{len(entries)} engine{'s' * (len(entries) != 1)} in {printable(where)}")
    return 0


def _described(engine: Engine) -> str:
    header = engine.header
    if header.convolutions:
        share = f"{header.int8 / header.convolutions:.0%}"
        share = f"{header.int8} of {header.convolutions} convolutions in INT8 ({share})"
    else:
        share = "no convolutions seen"
    return (
        f"{header.roles} {header.precision}: {header.key.provider} {header.key.version}, "
        f"{engine.size / 1e6:.1f} MB, {share}"
    )


def _installed(providers: Sequence[str]) -> str:
    """The first whose bindings are here. SessionError where there are none."""
    from dermedge.runtime.tensorrt import bindings

    reasons = []
    for provider in providers:
        try:
            bindings(provider)
        except SessionError as error:
            reasons.append(str(error))
        else:
            return provider
    raise SessionError("; ".join(reasons))


def _graphs(bundle: Bundle, precisions: list[str] | None) -> dict[Variant, list[str]]:
    """The graphs to build, each with the roles that it plays.

    Raises BundleError where one of `precisions` is missing, or there is no graph at all.
    """
    graphs: dict[Variant, list[str]] = {}
    models = bundle.manifest.models
    for role, model in ((role, models[role]) for role in ROLES if role in models):
        available = [p for p in PRECISIONS if model.variant(p, TARGET) is not None]
        for precision in precisions or available or PRECISIONS[:1]:
            graphs.setdefault(bundle.variant(role, precision, TARGET), []).append(role)
    return graphs


ENGINE = Command("build TensorRT engines for this machine", _arguments, _run, "tensorrt")
