"""The page's subcommand: build it, serve it."""

from __future__ import annotations

import argparse
from pathlib import Path

from dermedge.cli import Command
from dermedge.cli.options import bundle_arguments, open_bundle
from dermedge.files import cache_folder

PORT = 8080


def _arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser("build", help="make the folder of static files")
    bundle_arguments(build)
    build.add_argument(
        "--out", default="site", metavar="DIR", help="folder to write (default: %(default)s)"
    )
    build.add_argument(
        "--vendor",
        default=str(cache_folder() / "npm"),
        metavar="DIR",
        help="folder with the packages of npm; those that are missing there are fetched into it by "
        "`npm pack` (default: %(default)s)",
    )
    build.add_argument(
        "--numpy-wheel",
        metavar="FILE",
        help="numpy of Pyodide's official release; checked by the SHA-256 that npm's package of "
        "Pyodide names (default: one in the folder of --vendor)",
    )
    serve = actions.add_parser("serve", help="try a built site on this machine")
    serve.add_argument(
        "--site", default="site", metavar="DIR", help="folder that was built (default: %(default)s)"
    )
    serve.add_argument("--port", type=int, default=PORT, help="of 127.0.0.1 (default: %(default)s)")


def _run(args: argparse.Namespace) -> int:
    if args.action == "serve":
        return _serve(Path(args.site), args.port)
    from edge_app.web.build import build

    wheel = Path(args.numpy_wheel) if args.numpy_wheel else None
    report = build(open_bundle(args), Path(args.out), Path(args.vendor), wheel)
    print(
        f"{args.out}: build {report.build}, {report.bytes / 1e6:.1f} MB at a first visit. "
        "Put this folder on any web host with https, or try it: "
        f"dermedge web serve --site {args.out}"
    )
    return 0


def _serve(site: Path, port: int) -> int:
    from edge_app.web.serve import Server

    server = Server(site, port)
    print(f"{server.address} (end with Ctrl+C)", flush=True)
    try:
        server.wait()
    finally:
        server.close()
    return 0


WEB = Command(
    "make a page that analyses pictures on a phone, in its browser, without a server",
    _arguments,
    _run,
    extra="app",
)
