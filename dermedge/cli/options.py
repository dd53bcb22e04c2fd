"""Options that several commands share: the bundle, and how its networks run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dermedge import UserError
from dermedge.bundle import bundle as bundles
from dermedge.bundle.bundle import DEFAULT, Bundle, shipped
from dermedge.bundle.manifest import PRECISIONS
from dermedge.cli import one_line
from dermedge.runtime import RUNTIMES, ExecutionConfig


def bundle_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `open_bundle` reads; every command that takes a bundle has them."""
    parser.add_argument(
        "--bundle",
        default=DEFAULT,
        metavar="FILE",
        help=f"a .dermbundle, or one that comes with dermedge: {', '.join(shipped()) or 'none'} "
        f"(default: {DEFAULT})",
    )
    parser.add_argument(
        "--trusted-key",
        metavar="FILE",
        help="Ed25519 public key (PEM, one or more in a file); refuse a bundle that none of them "
        "signed, and an earlier release than was opened before",
    )
    parser.add_argument(
        "--min-release",
        type=int,
        metavar="N",
        help="refuse a bundle of an earlier release than N (default: with --trusted-key, the "
        "newest that this device has opened of its name and key)",
    )


def open_bundle(args: argparse.Namespace) -> Bundle:
    """The checked bundle that the options of `bundle_arguments` name."""
    from dermedge.bundle.releases import check_release

    if args.min_release is not None and args.min_release < 0:
        raise UserError("--min-release must be 0 (any) or more")
    key = Path(args.trusted_key).read_bytes() if args.trusted_key else None
    bundle = bundles.open_bundle(args.bundle, key)
    try:
        check_release(bundle, args.min_release)
    except OSError as error:
        # A device whose folders are read-only is no reason to run without a bundle.
        print(
            f"dermedge: {one_line(error)}; the release is not "
            "remembered, so an earlier one would be taken: give --min-release",
            file=sys.stderr,
        )
    return bundle


def port(value: str) -> int:
    """A port, for argparse; 0: one that is free."""
    if not (value.isascii() and value.isdigit() and int(value) < 2**16):
        raise argparse.ArgumentTypeError(f"must be 0 to 65535, got {value}")
    return int(value)


def execution_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that `tuned_executions` reads."""
    execution = parser.add_argument_group(
        "how the networks run (default: what `dermedge tune` chose)"
    )
    execution.add_argument("--precision", choices=PRECISIONS, help="of both networks")
    execution.add_argument("--provider", choices=RUNTIMES, metavar="NAME", help=", ".join(RUNTIMES))


def tuned_executions(args: argparse.Namespace, bundle: Bundle) -> dict[str, ExecutionConfig]:
    """Role to how its network is run: as the options say, else as `dermedge tune` chose."""
    from dermedge.tune import load_tuned

    if args.precision is None and args.provider is None:
        return load_tuned(bundle)
    return {
        role: ExecutionConfig(
            args.precision or model.precision, args.provider or "cpu", args.threads
        )
        for role, model in bundle.manifest.models.items()
    }


def engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the pictures are worked on."""
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: analyzers on all machines of a Ray cluster, by Ray Data (extra `ray`)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="analyzers on the cluster (default: as many as fit)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="of a running cluster (default: RAY_ADDRESS, else one on this machine)",
    )


def check_engine(args: argparse.Namespace) -> bool:
    """Whether the pictures go to a Ray cluster; UserError where the options make no sense."""
    if args.engine == "ray":
        if args.workers is not None and args.workers < 1:
            raise UserError("--workers must be 1 or more")
        return True
    if args.workers is not None or args.ray_address is not None:
        raise UserError("--workers and --ray-address need --engine ray")
    return False


def in_precision(bundle: Bundle, precision: str | None) -> Bundle:
    """The bundle with its graphs of that precision for this machine; None: as it is.

    Raises BundleError where a network has none.
    """
    if precision is None:
        return bundle
    from dermedge.analyzer import with_executions

    execution = ExecutionConfig(precision, "cpu")
    return with_executions(bundle, dict.fromkeys(bundle.manifest.models, execution))
