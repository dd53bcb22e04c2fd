"""Does ARM64 say what this machine says? `make arm64 PICTURES="a.jpg b.jpg"`.

Runs `dermedge analyze` on the real wheels for aarch64, by qemu's emulation of one process: Debian's
own packages for that machine are unpacked into build/arm64, nothing is installed. Up to a
minute a picture; the times say nothing of a device. Then the same pictures here, and both are
compared (`benchmarks.agreement`). In FP32, or what a slice holds that `--bundle` names. A run that
was stopped goes on where it was.

Needs root, for debootstrap, and Debian's packages qemu-user-static and debootstrap.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks import agreement
from dermedge import DISCLAIMER, UserError
from dermedge.bundle.bundle import open_bundle
from dermedge.cli import call
from dermedge.files import check_writable, names_in, write_atomic
from dermedge.image.preprocess import prepare
from dermedge.image.read import read_image

SUITE, PYTHON = "bookworm", "3.11"
# Newer ones end by SIGSEGV at import under qemu 7.2; not known whether by its fault or theirs.
ONNXRUNTIME = "1.27.0"
SAME = ("numpy", "opencv-python-headless", "pillow", "simplejpeg", "tqdm")  # versions as here
ALSO = ("flatbuffers", "packaging", "protobuf")
CHECKOUT = Path(__file__).parents[1]
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux2014_aarch64")
PREPARED = """
import sys
import numpy as np
from dermedge.bundle.bundle import Bundle
from dermedge.image.preprocess import prepare
from dermedge.image.read import read_image
bundle, out, *paths = sys.argv[1:]
specs = [model.preprocessing for model in Bundle.open(bundle).manifest.models.values()]
arrays = {f"{i}-{j}": prepare(read_image(path).pixels, spec)[0]
          for i, path in enumerate(paths) for j, spec in enumerate(specs)}
np.savez(out, **arrays)
"""


class Machine:
    """An emulated one, in a folder."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._root, self._site = folder / "root", folder / "site"

    def prepare(self) -> None:
        """Fetch what it needs; what is there already is kept.

        UserError where a tool is missing, or the folder holds other files.
        """
        for name in ("qemu-aarch64-static", "debootstrap", "dpkg-deb"):
            if not shutil.which(name):
                raise UserError(
                    f"{name} is missing: apt-get install qemu-user-static debootstrap", code="tool"
                )
        whole = self._folder / "whole"
        if whole.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        parts = (self._root, self._site)  # of a run that was stopped in here
        if not names_in(self._folder) <= {part.name for part in parts}:
            raise UserError(f"{self._folder} holds other files: name a new --folder")
        for part in parts:
            shutil.rmtree(part, ignore_errors=True)
        wanted = f"--include=python{PYTHON},libgomp1,libstdc++6"
        _run(
            ["debootstrap", "--download-only", "--arch=arm64", "--variant=minbase", wanted]
            + [SUITE, str(self._root)]
        )
        for package in sorted((self._root / "var/cache/apt/archives").glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(self._root)])
        pins = [f"{name}=={version(name)}" for name in SAME]
        _run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(self._site)]
            + ["--only-binary", ":all:", "--no-deps", "--python-version", PYTHON]
            + [word for tag in PLATFORMS for word in ("--platform", tag)]
            + [*pins, f"onnxruntime=={ONNXRUNTIME}", *ALSO]
        )
        whole.touch()

    def python(self, *words: str) -> None:
        """Run its Python with these words; the checkout's `dermedge` is found."""
        environment = {
            **os.environ,
            "PYTHONPATH": f"{CHECKOUT}:{self._site}",
            "PYTHONHOME": str(self._root / "usr"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }
        interpreter = str(self._root / f"usr/bin/python{PYTHON}")
        _run(["qemu-aarch64-static", "-L", str(self._root), interpreter, *words], environment)


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise UserError(f"{command[0]} failed with status {done.returncode}", code="tool")


def differing(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> dict[str, int]:
    """Of all bytes that the networks are fed with, how many are not the same, and by how much."""
    off = [np.abs(a.astype(int) - b) for a, b in zip(ours, theirs, strict=True)]
    return {
        "bytes": sum(one.size for one in off),
        "different": sum(int((one > 0).sum()) for one in off),
        "largest": max(int(one.max()) for one in off),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Write the figures; UserError where the arguments cannot be followed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.arm64",
        description=__doc__,
        epilog=DISCLAIMER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="up to a minute each")
    parser.add_argument(
        "--bundle",
        default="dermoscopy",
        metavar="FILE",
        help="or one that comes with dermedge (default: dermoscopy)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("build/arm64"),
        metavar="DIR",
        help="for the emulated system (default: build/arm64)",
    )
    parser.add_argument("--note", default="", help="what is to be said of the machine")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.json", help="the figures")
    args = parser.parse_args(argv)
    check_writable(args.out)  # said before all the work
    bundle = open_bundle(args.bundle)
    if not (CHECKOUT / "dermedge.egg-info").is_dir():
        raise UserError(
            f"{CHECKOUT} does not say which subcommands dermedge has: pip install -e {CHECKOUT}",
            code="tool",
        )
    specs = [model.preprocessing for model in bundle.manifest.models.values()]
    # A picture that cannot be read is said before all the work, too.
    ours = [prepare(read_image(p).pixels, spec)[0] for p in args.pictures for spec in specs]
    machine = Machine(args.folder)
    machine.prepare()
    options = ["-m", "dermedge.cli", "analyze", "--bundle", str(bundle.path), "--threads", "1"]
    if all(model.precision == "fp32" for model in bundle.manifest.models.values()):
        options += ["--provider", "cpu", "--precision", "fp32"]
    # A slice for ARM has one graph a network, which runs here, too, with the sums of ARM.
    here, there = args.folder / "here.jsonl", args.folder / "there.jsonl"
    machine.python(*options, "--out", str(there), *args.pictures)
    _run([sys.executable, *options, "--out", str(here), *args.pictures])
    prepared = args.folder / "prepared.npz"
    machine.python("-c", PREPARED, str(bundle.path), str(prepared), *args.pictures)
    with np.load(prepared) as arrays:
        theirs = [arrays[name] for name in arrays.files]
    figures = {
        **agreement.agreement(*(agreement.read(file, args.pictures) for file in (here, there))),
        "prepared": differing(ours, theirs),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "note": args.note,
    }
    write_atomic(args.out, json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    raise SystemExit(call(main))
