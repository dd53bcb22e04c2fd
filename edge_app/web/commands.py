"""The page's subcommand: build it, serve it, put it into an APK."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dermedge import UserError
from dermedge.cli import Command, ask_secret
from dermedge.cli.options import bundle_arguments, open_bundle, port
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
        metavar="DIR",
        help="folder with the packages of npm; those that are missing there are fetched into it by "
        "`npm pack` (default: dermedge/npm in your cache)",
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
    serve.add_argument(
        "--port", type=port, default=PORT, help="of 127.0.0.1 (default: %(default)s)"
    )
    apk = actions.add_parser("apk", help="put a built site into an app for Android")
    apk.add_argument(
        "--site", default="site", metavar="DIR", help="folder that was built (default: %(default)s)"
    )
    apk.add_argument(
        "--out", default="dermedge.apk", metavar="FILE", help="to write (default: %(default)s)"
    )
    apk.add_argument(
        "--key",
        required=True,
        metavar="FILE",
        help="the clinic's own key (PKCS#12 or JKS), which signs this and every later version; its "
        "passphrase is asked for, or the first line of standard input",
    )
    apk.add_argument("--new-key", action="store_true", help="make that key first")
    apk.add_argument(
        "--vendor",
        metavar="DIR",
        help="folder with two libraries of Maven Central; what is missing there is fetched into it "
        "(default: dermedge/maven in your cache)",
    )


def _run(args: argparse.Namespace) -> int:
    if args.action == "serve":
        return _serve(Path(args.site), args.port)
    if args.action == "apk":
        return _apk(args)
    from edge_app.web.build import build

    wheel = Path(args.numpy_wheel) if args.numpy_wheel else None
    report = build(open_bundle(args), Path(args.out), _vendor(args, "npm"), wheel)
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


def _apk(args: argparse.Namespace) -> int:
    from edge_app.web.apk import build_apk, check_paths, new_key

    site, out, key = Path(args.site), Path(args.out), Path(args.key)
    check_paths(site, out)
    passphrase = _passphrase(twice=args.new_key)
    if args.new_key:
        new_key(key, passphrase)
        print(f"{key}: a new key. Keep it, and its passphrase: without it no phone takes an update")
    made = build_apk(site, out, key, passphrase, _vendor(args, "maven"))
    print(
        f"{args.out}: {made.bytes / 1e6:.1f} MB, signed by {made.signer}; SHA-256 before the "
        f"signature {made.unsigned}"
    )
    return 0


def _vendor(args: argparse.Namespace, name: str) -> Path:
    return Path(args.vendor) if args.vendor else cache_folder() / name


def _passphrase(twice: bool) -> str:
    given = ask_secret("Passphrase of the key: ")
    if twice and sys.stdin.isatty() and given != ask_secret("Once more: "):
        raise UserError("The two are not the same.", code="web.key-passphrase")
    return given


WEB = Command(
    "make a page that analyses pictures on a phone, in its browser, without a server",
    _arguments,
    _run,
    extra="app",
)
