"""The figures of one `dermedge bench` in one picture, without pictures of skin.

`python -m benchmarks.report.picture BENCH.json --out FILE.png`; Chromium or Chrome draws it. How
README's was made is written in benchmarks/results/README.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.report import page
from benchmarks.schema import bench_result
from dermedge import UserError
from dermedge.cli import call
from dermedge.files import write_atomic

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, TALLEST = 1400, 3000  # px
EDGE = 24  # px, left below the last line
SECONDS = 60  # that the browser may take


def draw(html: str, browser: str) -> bytes:
    """A page of WIDTH px as PNG, cut below its last line. UserError where the browser fails."""
    with tempfile.TemporaryDirectory() as folder:
        source, image = Path(folder, "page.html"), Path(folder, "page.png")
        source.write_text(html, encoding="utf-8")
        words = [browser, "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        words += [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{TALLEST}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            words.append("--no-sandbox")  # which root cannot have; the page is our own
        words += [f"--screenshot={image}", source.as_uri()]
        try:
            subprocess.run(words, capture_output=True, timeout=SECONDS, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            raise UserError(f"{browser} drew no picture of the page") from None
        pixels = cv2.imread(str(image))
    if pixels is None:
        raise UserError(f"{browser} drew no picture of the page")
    inked = np.flatnonzero((pixels != pixels[-1, -1]).any(axis=(1, 2)))
    cut = pixels[: inked[-1] + EDGE]
    return cv2.imencode(".png", cut, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture that the arguments ask for; UserError where they cannot be followed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report.picture", description=__doc__
    )
    parser.add_argument("bench", metavar="BENCH.json", help="of `dermedge bench`")
    parser.add_argument("--out", required=True, metavar="FILE.png", help="the picture")
    args = parser.parse_args(argv)
    result = bench_result.load(args.bench)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UserError(f"no browser to draw with; install one of {', '.join(BROWSERS)}")
    write_atomic(args.out, draw(page.render_picture(result, WIDTH), browser))


if __name__ == "__main__":
    sys.exit(call(main))
