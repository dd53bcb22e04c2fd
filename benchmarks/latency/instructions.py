"""How many instructions preprocessing and postprocessing take.

`python -m benchmarks.latency.instructions` counts and compares.

Times on shared machines are noise; valgrind counts the same instructions every time. One process
runs each stage between two calls of getppid, before which callgrind writes what it counted. A
stage that takes more than `TOLERANCE` above what `results/speed/instructions.json` holds fails;
`--update` writes that file again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np

from dermedge import UserError
from dermedge.cli import call
from dermedge.files import write_atomic

KEPT = Path(__file__).parents[1] / "results" / "speed" / "instructions.json"
TOLERANCE = 0.05
AVX2 = 11  # CPU_AVX2 of OpenCV, which has no name in Python


def stages() -> dict[str, Callable[[], object]]:
    """What is counted: of a drawn camera frame of 1280x720 with the map of its true lesion, what
    an analysis does beside its networks of 192 and 224 px."""
    from dermedge.data.synthetic import draw
    from dermedge.image.preprocess import Preprocessing, downsampled, prepare
    from dermedge.lesion.features import measure
    from dermedge.lesion.quality import assess, reduced

    drawn = draw(3, "phone", size=(720, 1280))
    spec = Preprocessing(size=192)
    treated = Preprocessing(size=192, color_constancy=True, hair_removal=True)

    def halve() -> np.ndarray:
        return downsampled(drawn.image, *reduced(drawn.image.shape))

    view = halve()
    _, placement = prepare(view, spec)
    inside = placement.place(cv2.resize(drawn.mask.astype(np.float32), view.shape[1::-1]))
    certainty = placement.inside(inside)
    lesion = measure(certainty, view)
    return {
        "halve": halve,
        "prepare, 192 px": lambda: prepare(view, spec),
        "prepare, 224 px": lambda: prepare(view, Preprocessing(size=224)),
        "prepare, 192 px, colour constancy and hair removal": lambda: prepare(view, treated),
        "lesion": lambda: measure(certainty, view),
        "quality": lambda: assess(view, lesion.mask, certainty),
    }


def versions() -> dict[str, str]:
    """Counts hold for these only."""
    return {
        "machine": platform.machine() + ", AVX2" * cv2.checkHardwareSupport(AVX2),
        "libc": " ".join(platform.libc_ver()),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def count() -> dict[str, int]:
    """Instructions of each stage.

    Raises UserError where valgrind is missing or fails.
    """
    if not shutil.which("valgrind"):
        raise UserError("valgrind is not installed: `apt-get install valgrind`")
    # What would differ from run to run or from machine to machine.
    own = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *("valgrind", "--tool=callgrind", "--dump-before=getppid"),
                f"--callgrind-out-file={folder}/out",
                *(sys.executable, "-m", __spec__.name, "--child"),
            ],
            env=os.environ | own,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise UserError(f"valgrind failed: {' '.join(done.stderr.split())[-200:]}")
        dumps = sorted(Path(folder).glob("out.*"), key=lambda path: int(path.suffix[1:]))
        totals = [_total(path.read_text()) for path in dumps]
    names = json.loads(done.stdout)
    # The first dump is of the start, and before each stage it ran once without being counted.
    return dict(zip(names, totals[2::2], strict=False))


def _total(dump: str) -> int:
    line = re.search(r"^(?:summary|totals): (\d+)", dump, re.MULTILINE)
    if line is None:
        raise UserError("valgrind wrote a dump without a total")
    return int(line[1])


def _child() -> None:
    cv2.setNumThreads(1)
    work = stages()
    os.getppid()
    for stage in work.values():
        stage()  # tables are built, memory is taken
        os.getppid()
        stage()
        os.getppid()
    print(json.dumps(list(work)))


def compare(found: Mapping[str, int], kept: Mapping[str, int]) -> list[str]:
    """In words, what takes more than it may."""
    slower = []
    for name, limit in kept.items():
        if name not in found:
            slower.append(f"{name}: is not counted any more; --update")
        elif found[name] > limit * (1 + TOLERANCE):
            slower.append(
                f"{name}: {found[name]:,} instructions, {100 * (found[name] / limit - 1):.0f} % "
                f"more than {limit:,}; make it cheaper, or --update where it is worth that"
            )
    return slower


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency.instructions", description=__doc__
    )
    parser.add_argument("--update", action="store_true", help="keep these counts from now on")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        _child()
        return 0
    found = count()
    for name, value in found.items():
        print(f"{name:<52}{value:>14,}")
    if args.update:
        write_atomic(KEPT, json.dumps({"versions": versions(), "counts": found}, indent=1) + "\n")
        print(f"written: {KEPT.name}")
        return 0
    kept = json.loads(KEPT.read_text())
    if kept["versions"] != versions():
        print(f"not compared: the kept counts are of {kept['versions']}, here is {versions()}")
        return 0
    slower = compare(found, kept["counts"])
    print("\n".join(slower) or f"none takes more than {100 * TOLERANCE:.0f} % above what was kept")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(call(main))
