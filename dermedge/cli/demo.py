"""`dermedge demo`: the commands that a user would type, one after the other, on one folder."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dermedge import DISCLAIMER, UserError, __version__
from dermedge.cli import CHECKOUT, DESKTOP, Command
from dermedge.files import names_in, write_atomic
from dermedge.text import printable

STATE = "steps.json"
# All that its steps write into the folder, which --fresh deletes.
MADE = frozenset(
    {
        *(STATE, "data", "split.json", "cache", "fingerprints", "segmenter", "classifier"),
        *("dermoscopy", "dermoscopy.jsonl", "demo.dermbundle", "evaluation.json"),
        *("masks", "outlines", "analyses.jsonl", "bench", "report.html"),
    }
)
STEPS = 8
SAMPLES = 12
SUBSET = 1200
PICTURES = 900  # generated: enough to learn from in a few minutes of two slow cores
# Neither needs a network: the classifier starts from the bundle that comes with dermedge.
RECIPES: dict[str, dict[str, tuple[str, ...]]] = {
    "generated": {
        "segmenter": ("--recipe", "demo-segmenter", "--set", "epochs=5"),
        "classifier": ("--recipe", "demo-classifier"),
    },
    "real": {
        "segmenter": ("--recipe", "demo-segmenter"),
        "classifier": ("--recipe", "demo-classifier-imagenet"),
    },
}


@dataclass(frozen=True)
class Step:
    """One command of the demo."""

    title: str
    command: tuple[str, ...]
    makes: Path  # a file or folder that is there once the step is done
    prints: bool = False  # whether what it prints on stdout is to be stored in `makes`

    @property
    def key(self) -> str:
        """Hex digest of what the step does; a step is skipped where that was done before."""
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
        metavar="N",
        help="with --data: train on a stratified subset of N pictures, 0 for all "
        f"(default: {SUBSET})",
    )
    parser.add_argument("--out", default="demo", metavar="DIR", help="default: ./demo")
    parser.add_argument(
        "--fresh", action="store_true", help="start afresh; default: resume what is there"
    )


def run(args: argparse.Namespace) -> int:
    limit = SUBSET if args.limit is None else args.limit
    if limit < 0:
        raise UserError("--limit must be 0 (all) or the number of pictures")
    if args.limit is not None and not args.data:
        raise UserError("--limit is for --data: leave it out, or give a data set")
    if any(importlib.util.find_spec(room) is None for room in DESKTOP):
        raise UserError(f"'demo' runs in a checkout of dermedge: {CHECKOUT}")
    for package in ("torch", "onnx", "jinja2"):
        # Said now, not after a minute of other steps.
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(name=package)
    if args.data:
        from dermedge.data import load, parse_source

        # Before --fresh throws the last demo away.
        load(*parse_source(args.data))
    out = Path(args.out)
    done = _folder(out, args.fresh)
    started = time.monotonic()
    source = args.data or f"procedural={out / 'data'}"
    if not args.data:
        from dermedge.data.synthetic import write_data_set

        print("[generating pictures to learn from]", flush=True)
        write_data_set(out / "data", PICTURES)
    recipes = RECIPES["real" if args.data else "generated"]
    subset = ("--limit", str(limit)) if args.data and limit else ()
    for number, step in enumerate(_steps(out, source, recipes, subset), start=1):
        if done[number - 1 : number] == [step.key] and step.makes.exists():
            print(f"[{number}/{STEPS}] {step.title}: done before", flush=True)
            continue
        print(f"[{number}/{STEPS}] {step.title}\n  $ {_shown(step)}", flush=True)
        begun = time.monotonic()
        _execute(step)
        print(f"  took {time.monotonic() - begun:.0f} s", flush=True)
        # A step that ran again makes all that follow it run again.
        done = [*done[: number - 1], step.key]
        write_atomic(out / STATE, json.dumps(done))
    bundle = out / "demo.dermbundle"
    samples = _samples(out, source)
    print(f"\nReady after {time.monotonic() - started:.0f} s. Open next:")
    print(f"  {printable(out / 'report.html')}   the report, in a browser")
    print(
        f"  {printable(out / 'dermoscopy')}   what the bundle that comes with dermedge sees in them"
    )
    for words in (
        ("app", "--bundle", str(bundle), "--source", str(samples[0].parent)),
        ("analyze", "YOUR_PICTURE.jpg", "--bundle", str(bundle)),
    ):
        print(f"  {_typed(*words)}")
    print(DISCLAIMER)
    return 0


def _folder(out: Path, fresh: bool) -> list[str]:
    """Prepare the demo's folder; returns the keys of the steps that are done."""
    state = out / STATE
    if not state.exists() and names_in(out):
        raise UserError(f"{out} holds other files; choose another folder with --out")
    if fresh and out.exists():
        if others := sorted(names_in(out) - MADE):
            raise UserError(
                f"{out} holds other files ({', '.join(others[:3])}), which --fresh would delete: "
                "move them, or choose another folder with --out"
            )
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        return list(json.loads(state.read_text()))
    except (FileNotFoundError, ValueError):
        write_atomic(state, "[]")
        return []


def _samples(out: Path, source: str) -> list[Path]:
    """Pictures of the test part, the same at every run, whose drawings have a name each."""
    from dermedge.batch import stem
    from dermedge.data import load, parse_source
    from dermedge.data.split import Split

    records = load(*parse_source(source)).records
    test = Split.load(out / "split.json").select(records, "test")
    if not test:
        raise UserError(f"the split of {source} has no test part to show")
    by_hash = sorted(test, key=lambda record: hashlib.sha256(record.id.encode()).digest())
    named: dict[str, Path] = {}
    for record in by_hash:
        named.setdefault(stem(str(record.image)).casefold(), record.image)
    return list(named.values())[:SAMPLES]


def _steps(
    out: Path, source: str, recipes: dict[str, tuple[str, ...]], subset: tuple[str, ...]
) -> Iterator[Step]:
    python = (sys.executable, "-m", "dermedge.cli")
    split, bundle = out / "split.json", out / "demo.dermbundle"
    looked_at = out / "dermoscopy"
    runs = {kind: out / kind for kind in ("segmenter", "classifier")}
    yield Step(
        "check the data and freeze the split",
        (*python, "data", "check", source, "--split", str(split)),
        makes=split,
    )
    samples = tuple(map(str, _samples(out, source)))
    yield Step(
        "analyse sample pictures with the bundle that comes with dermedge",
        (*python, "analyze", *samples, "--explain", str(looked_at), "--json"),
        makes=out / "dermoscopy.jsonl",
        prints=True,
    )
    for kind, folder in runs.items():
        yield Step(
            f"train the {kind}",
            (
                *(*python, "train", kind, *recipes[kind], "--data", source),
                *("--split", str(split), "--out", str(folder), *subset),
            ),
            makes=folder / "run.json",
        )
    yield Step(
        "export both as one bundle",
        (
            *(*python, "export", *map(str, runs.values())),
            *("--out", str(bundle), "--name", "demo"),
        ),
        makes=bundle,
    )
    yield Step(
        "evaluate on the test part, beside simple baselines",
        (
            *(*python, "evaluate", "--bundle", str(bundle), "--data", source),
            # The whole test part, also where the training took a subset.
            *("--split", "test", "--split-file", str(split), "--baselines", "--json"),
        ),
        makes=out / "evaluation.json",
        prints=True,
    )
    yield Step(
        "analyse the same pictures with it",
        (*python, "analyze", *samples, "--bundle", str(bundle), "--json")
        + ("--masks", str(out / "masks"), "--outlines", str(out / "outlines")),
        makes=out / "analyses.jsonl",
        prints=True,
    )
    yield Step(
        "measure the speed and write the report",
        (
            *(*python, "bench", "--bundle", str(bundle), "--out", str(out / "bench")),
            *("--evaluation", str(out / "evaluation.json"), "--pictures", *samples),
            *("--training-runs", *map(str, runs.values())),
            *("--title", "dermedge demo", "--report", str(out / "report.html")),
        ),
        makes=out / "report.html",
    )


def _shown(step: Step) -> str:
    text = _typed(*step.command[3:])
    return text if len(text) <= 160 else f"{text[:160]} ..."


def _typed(*words: str) -> str:
    """A command of dermedge as this system's shell takes it."""
    join = subprocess.list2cmdline if sys.platform == "win32" else shlex.join
    return printable(join(("dermedge", *words)))


def _execute(step: Step) -> None:
    try:
        done = subprocess.run(
            step.command, check=False, stdout=subprocess.PIPE if step.prints else None
        )
    except KeyboardInterrupt:
        line = "interrupted; the same command goes on from here (without --fresh)"
        print(f"\n{line}", file=sys.stderr)
        raise
    # Status 1 with an output: a few pictures could not be read, and the output names them.
    if done.returncode and not (done.returncode == 1 and done.stdout):
        raise UserError(
            f"'{step.title}' failed (see above); mend it and run the demo again, or with --fresh"
        )
    if step.prints:
        write_atomic(step.makes, done.stdout)


DEMO = Command(
    "the whole way: data, training, export, analysis, report",
    arguments,
    run,
    "export,bench",
)
