"""`dermedge demo`: the commands that a user would type, one after the other, on one folder."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from dermedge import DISCLAIMER, UserError, __version__
from dermedge.files import write_atomic

STEPS = "steps.json"
SAMPLES = 12
PICTURES = 420  # generated: enough to learn from in a minute of two slow cores


@dataclass(frozen=True)
class Step:
    """One command of the demo; `output` receives what it prints, where that is wanted."""

    title: str
    command: tuple[str, ...]
    output: Path | None = None

    @property
    def key(self) -> str:
        return hashlib.sha256(repr((__version__, self.command)).encode()).hexdigest()


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        metavar="NAME=PATH",
        help="train on this data set; default: pictures that the demo generates",
    )
    parser.add_argument(
        "--limit",
        type=int,
        default=1200,
        metavar="N",
        help="with --data: train on a stratified subset of N pictures, 0 for all (default: 1200)",
    )
    parser.add_argument("--out", default="demo", metavar="DIR", help="default: ./demo")
    parser.add_argument(
        "--fresh", action="store_true", help="start afresh; default: resume what is there"
    )


def run(args: argparse.Namespace) -> int:
    out = Path(args.out)
    done = _folder(out, args.fresh)
    started = time.monotonic()
    source = args.data or f"procedural={out / 'data'}"
    if not args.data:
        _generate(out / "data")
    steps = _steps(out, source, args.limit if args.data else 0)
    for number, step in enumerate(steps, start=1):
        if done[number - 1 : number] == [step.key]:
            print(f"[{number}/{len(steps)}] {step.title}: done before", flush=True)
            continue
        print(f"[{number}/{len(steps)}] {step.title}\n  $ {_shown(step)}", flush=True)
        begun = time.monotonic()
        _execute(step)
        print(f"  took {time.monotonic() - begun:.0f} s", flush=True)
        # A step that ran again makes all that follow it run again.
        done = [*done[: number - 1], step.key]
        write_atomic(out / STEPS, json.dumps(done))
    bundle = out / "demo.dermbundle"
    print(f"\nReady after {time.monotonic() - started:.0f} s. Open next:")
    print(f"  {out / 'report.html'}   the report, in a browser")
    print(f"  dermedge app --bundle {bundle} --source {_pictures(out)}")
    print(f"  dermedge analyze YOUR_PICTURE.jpg --bundle {bundle}")
    print(DISCLAIMER)
    return 0


def _folder(out: Path, fresh: bool) -> list[str]:
    """Prepare the demo's folder; returns the keys of the steps that are done."""
    state = out / STEPS
    if out.exists() and not state.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds other files; choose another folder with --out")
    if fresh and out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        return list(json.loads(state.read_text()))
    except (FileNotFoundError, ValueError):
        write_atomic(state, "[]")
        return []


def _generate(root: Path) -> None:
    from dermedge.procedural import write_data_set

    write_data_set(root, PICTURES)


def _pictures(out: Path) -> Path:
    return out / "samples"


def _steps(out: Path, source: str, limit: int) -> list[Step]:
    python = (sys.executable, "-m", "dermedge.cli")
    split, bundle = out / "split.json", out / "demo.dermbundle"
    subset = ("--limit", str(limit)) if limit else ()
    runs = [out / "segmenter", out / "classifier"]
    steps = [
        Step(
            "check the data and freeze the split",
            (*python, "data", "check", source, "--split", str(split)),
        )
    ]
    for kind, folder in zip(("segmenter", "classifier"), runs, strict=True):
        steps.append(
            Step(
                f"train the {kind}",
                (
                    *(*python, "train", kind, "--recipe", f"demo-{kind}", "--data", source),
                    *("--split", str(split), "--out", str(folder), *subset),
                ),
            )
        )
    steps.append(
        Step(
            "export both as one bundle",
            (*python, "export", *map(str, runs), "--out", str(bundle), "--name", "demo"),
        )
    )
    steps.append(
        Step(
            "evaluate on the test part, beside simple baselines",
            (
                *(*python, "evaluate", "--bundle", str(bundle), "--data", source),
                *("--split", "test", "--baselines", "--json"),
            ),
            output=out / "evaluation.json",
        )
    )
    return steps


def _shown(step: Step) -> str:
    return shlex.join(("dermedge", *step.command[3:]))


def _execute(step: Step) -> None:
    try:
        done = subprocess.run(
            step.command, check=False, stdout=subprocess.PIPE if step.output else None
        )
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        raise
    if done.returncode:
        raise UserError(f"'{step.title}' failed (see above); mend it and run the demo again")
    if step.output:
        write_atomic(step.output, done.stdout)
