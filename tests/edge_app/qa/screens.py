"""Every screen of the app in each size, look and language, with what its audit finds; the pages'
pictures.

    xvfb-run -s "-screen 0 1920x1200x24" python tests/edge_app/qa/screens.py OUT
    xvfb-run python tests/edge_app/qa/screens.py OUT --picture docs/app.png  # or docs/send.png

Looks at drawn pictures, or at those of `--source`. Each run leaves its screens in a folder of OUT
and a sheet of them beside it, to be looked at.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from dermedge.data import synthetic as procedural
from dermedge.image.read import write_png

MODELS = Path(__file__).parents[3] / "dermedge" / "models"
PHONE, DESK, WIDE = "360x640", "1280x800", "1920x1080"
RUNS = [
    *((size, theme, language, "normal")
      for size in (PHONE, DESK, WIDE) for theme in ("light", "dark") for language in ("en", "ar")),
    *((PHONE, theme, "de", text) for theme, text in (("light", "very large"), ("dark", "normal"))),
    *((DESK, theme, "es", text) for theme, text in (("light", "very large"), ("dark", "normal"))),
]  # fmt: skip
# Pictures of the pages by their names: which screens, of which runs.
SHOWN = {
    "app": [
        ((PHONE, "light", "en", "normal"), ("live", "result", "person", "lesion", "compare")),
        ((PHONE, "dark", "ar", "normal"), ("result",)),
    ],
    "send": [
        (
            (PHONE, "light", "en", "normal"),
            ("send-pictures", "send-history", "send-consent", "send-preview-picture",
             "referral-answered"),
        ),
    ],
}  # fmt: skip
VIEWS = (0, 4, 12)  # of the drawn lesion: whole, sharp, about as large
GAP, GROUND = 16, (196, 207, 212)  # px, RGB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", type=Path, help="folder of pictures (default: drawn ones)")
    parser.add_argument("--bundle", type=Path, default=MODELS / "smartphone.dermbundle")
    parser.add_argument("--picture", type=Path, help="write one picture of SHOWN alone, here")
    args = parser.parse_args()
    source = args.source or _drawn(args.out / "drawn")
    if args.picture:
        rows = []
        for run, names in SHOWN[args.picture.stem]:
            folder, _faults = _take(run, args.out, source, args.bundle)
            rows += [folder / f"{name}.png" for name in names]
        write_png(args.picture, _sheet(rows, len(rows), 0.66))
        return 0
    found = 0
    for run in RUNS:
        folder, faults = _take(run, args.out, source, args.bundle)
        shots = sorted(folder.glob("*.png"))
        write_png(args.out / f"{folder.name}.png", _sheet(shots, 8 if run[0] == PHONE else 5, 0.5))
        found += len(faults)
        print(f"{' '.join(run)}: {len(shots)} screens, {len(faults)} faults", *faults, sep="\n  ")
    return 1 if found else 0


def _drawn(folder: Path) -> Path:
    """One lesion from several sides."""
    folder.mkdir(parents=True, exist_ok=True)
    for view in VIEWS:
        drawn = procedural.draw(5, "phone", (900, 900), label="mel", view=view, artefacts=())
        write_png(folder / f"{view}.png", drawn.image)
    return folder


def _take(run: tuple[str, ...], out: Path, source: Path, bundle: Path) -> tuple[Path, list[str]]:
    """Its folder of screens, and the faults."""
    size, theme, language, text = run
    folder = out / "-".join(part.replace(" ", "") for part in run)
    command = [sys.executable, "-m", "dermedge.cli", "app", "--screenshot", folder, "--size", size]
    command += ["--source", source, "--bundle", bundle]
    command += ["--theme", theme, "--language", language, "--text", text]
    done = subprocess.run(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    return folder, done.stderr.splitlines()


def _sheet(paths: list[Path], columns: int, scale: float) -> np.ndarray:
    """The pictures side by side, uint8 (h, w, 3) RGB."""
    shots = [cv2.imread(str(path))[..., ::-1] for path in paths]
    shots = [
        cv2.resize(shot, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for shot in shots
    ]
    high, wide = shots[0].shape[:2]
    rows = -(-len(shots) // columns)
    sheet = np.empty((rows * (high + GAP) + GAP, columns * (wide + GAP) + GAP, 3), np.uint8)
    sheet[:] = GROUND
    for number, shot in enumerate(shots):
        row, column = divmod(number, columns)
        y, x = GAP + row * (high + GAP), GAP + column * (wide + GAP)
        sheet[y : y + high, x : x + wide] = shot
    return sheet


if __name__ == "__main__":
    sys.exit(main())
