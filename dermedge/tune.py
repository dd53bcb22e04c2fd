"""What runs fastest on this device, and right: precision, runtime and threads of each network.

Every graph of a bundle has passed the export's acceptance on real pictures. Here each way to run it
has to show on this device that it computes the same, output by output, before it may be timed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dermedge import UserError, __version__
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import PRECISIONS, BundleError
from dermedge.data import synthetic as procedural
from dermedge.evaluation.paired_timing import paired_timing, ratio
from dermedge.evaluation.provenance import cpu_name, usable_cores
from dermedge.files import cache_folder, check_folder, write_atomic
from dermedge.image.preprocess import prepare
from dermedge.network import graph_of
from dermedge.runtime import (
    ENGINES,
    JAVA,
    MOST_THREADS,
    OPENVINO,
    RUNTIMES,
    ExecutionConfig,
    Session,
    SessionError,
    host,
    java,
    onnx,
    open_session,
    target,
    tensorrt,
)
from dermedge.runtime.installed import providers, version
from dermedge.tune_budget import Budget, TimeOver
from dermedge.tune_check import Feed, Open, References, answers, network_feeds

PICTURES = 16  # drawn ones, that an execution is checked on
ROUNDS = (10, 400)  # fewest and most rounds of all executions
_MOST_BYTES = 64 * 1024  # of a stored choice
NO_TIME = "there was no time to try it"
ATTEMPTS = ".attempts"  # suffix of what `dermedge app` notes beside a choice
_BUILDING = ("ort-tensorrt",)  # runtimes that build an engine when a session is opened
_OWN_THREADS = ("cpu", "xnnpack", OPENVINO, JAVA)  # runtimes that use the processor's cores


class TuneError(UserError):
    """What was found cannot be kept; one line."""


@dataclass(frozen=True)
class Result:
    """One way to run one network."""

    role: str
    execution: ExecutionConfig
    reason: str = ""  # why it was not timed; "": it was
    ms: float | None = None  # median
    ratio: float | None = None  # times as fast as the bundle's first graph on the processor
    low: float | None = None  # 95 % interval, by bootstrap over rounds
    high: float | None = None
    chosen: bool = False

    def to_json(self) -> dict[str, Any]:
        """What `dermedge tune --json` prints of it; 'road' is the name of 0.1.0 for 'execution'."""
        return {**asdict(self), "road": asdict(self.execution)}


def _to_stderr(line: str) -> None:
    print(f"dermedge: {line}", file=sys.stderr)


def executions(bundle: Bundle, role: str) -> list[ExecutionConfig]:
    """All ways to run a role's network here; the first is the bundle's own, untuned."""
    model = bundle.manifest.models[role]
    cores = usable_cores()
    configurations = [ExecutionConfig(model.precision, "cpu", 0)]
    for provider in providers():
        for precision in PRECISIONS:
            if model.variant(precision, target(provider)) is None:
                continue
            counts = sorted({1, 2, cores}) if provider in _OWN_THREADS else [0]
            configurations += [ExecutionConfig(precision, provider, count) for count in counts]
    return configurations


@dataclass(frozen=True)
class _How:
    """How one network is tuned."""

    seconds: float  # for timing it
    opener: Open
    clock: Callable[[], float]
    progress: Callable[[str], None]
    quiet: Callable[[], bool]
    budget: Budget


def tune(
    bundle: Bundle,
    seconds: float,
    opener: Open = open_session,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[str], None] = lambda text: None,
    limit: float = math.inf,
    quiet: Callable[[], bool] = lambda: True,
) -> list[Result]:
    """Try every execution of every network, and choose.

    Parameters
    ----------
    seconds : for timing each network; every execution is run `ROUNDS[0]` times at least.
    opener, clock : as `open_session` and `time.perf_counter`.
    progress : called before each piece of work, with what it is; it may wait, where `clock` stands
        still meanwhile, and what it raises ends the tuning.
    limit : s for everything. What does not fit in is left out, the most promising last; it is not
        chosen. A single session that is slow to open may overrun it.
    quiet : as in `paired_timing`.

    Returns
    -------
    One result an execution. The one that is chosen is the fastest whose interval lies above the
    bundle's own graph on the processor, or else that one.
    """
    start = clock()
    pictures = [procedural.draw(seed, size=(192, 256)).image for seed in range(PICTURES)]
    results: list[Result] = []
    parts: dict[str, str] = {}
    networks = len({model.part for model in bundle.manifest.models.values()})
    for role, model in bundle.manifest.models.items():
        if model.part in parts:  # one network that plays both roles runs once
            same = [replace(r, role=role) for r in results if r.role == parts[model.part]]
            results += same
            continue
        parts[model.part] = role
        budget = Budget(clock, start + limit * len(parts) / networks)
        how = _How(seconds, opener, clock, progress, quiet, budget)
        results += _tune_role(bundle, role, pictures, how)
    return results


def _tune_role(
    bundle: Bundle, role: str, pictures: Sequence[np.ndarray], how: _How
) -> list[Result]:
    model = bundle.manifest.models[role]
    feeds = network_feeds([prepare(picture, model.preprocessing)[0] for picture in pictures], model)
    configurations = executions(bundle, role)
    own = configurations[0]
    sessions, reasons = _checked(bundle, role, configurations, feeds, how)
    if reasons.get(own, NO_TIME) != NO_TIME:
        raise SessionError(
            "the {role} does not run as the bundle has it ({reason}): run `dermedge verify`",
            code="tune-own-graph",
            role=role,
            reason=reasons[own],
        )
    times = _timed(role, sessions, feeds, how) if own in sessions else {}
    results = []
    for execution in configurations:
        if execution in times:
            timing: dict[str, Any] = ratio(times[own], times[execution])
            results.append(Result(role, execution, **timing))
        else:
            results.append(Result(role, execution, reason=reasons.get(execution, NO_TIME)))
    faster = [(r.ms, r) for r in results if r.ms is not None and r.low is not None and r.low > 1]
    best = min(faster, key=lambda pair: pair[0])[1] if faster else results[0]
    return [replace(result, chosen=result is best) for result in results]


def _checked(
    bundle: Bundle,
    role: str,
    configurations: Sequence[ExecutionConfig],
    feeds: Sequence[Feed],
    how: _How,
) -> tuple[dict[ExecutionConfig, Session], dict[ExecutionConfig, str]]:
    """What computes the same, and why the rest is left out."""
    sessions: dict[ExecutionConfig, Session] = {}
    reasons: dict[ExecutionConfig, str] = {}
    references = References(bundle, role, how.opener, feeds)
    for execution in _by_promise(configurations, how.budget):
        work = f"{role}: checking {execution}"

        def step(work: str = work) -> None:
            how.budget.check()
            how.progress(work)

        reason = _left_out(execution, how.budget)
        try:
            if not reason:
                step()
                start = how.clock()
                session = how.opener(*references.session(execution))
                opened = how.clock()
                outputs = answers(session, feeds, step)
                run = (how.clock() - opened) / len(feeds)
                reason = references.mismatch(execution, outputs, step)
        except SessionError as error:
            reason = str(error)
        except TimeOver:
            reason = NO_TIME
        if not reason and not how.budget.admit(how.clock() - start, run, ROUNDS[0]):
            reason = NO_TIME
        if reason:
            reasons[execution] = reason
        else:
            sessions[execution] = session
    return sessions, reasons


def _by_promise(configurations: Sequence[ExecutionConfig], budget: Budget) -> list[ExecutionConfig]:
    """The own first; where time is short, then each graph in each runtime once, on most cores."""
    own, *others = configurations
    if not budget.limited:
        return list(configurations)
    others.sort(key=lambda one: one.precision != "int8")
    ranks: dict[ExecutionConfig, int] = {}
    for one in sorted(others, key=lambda one: -one.threads):
        alike = [o for o in ranks if (o.precision, o.provider) == (one.precision, one.provider)]
        ranks[one] = len(alike)
    return [own, *sorted(others, key=lambda one: ranks[one])]


def _left_out(execution: ExecutionConfig, budget: Budget) -> str:
    """Why it is not even opened where time is short; "" where it is."""
    if budget.limited and execution.provider in _BUILDING:
        return "its engine takes minutes to build: `dermedge tune` tries it"
    return "" if budget.fits(ROUNDS[0]) else NO_TIME


def _timed(
    role: str, sessions: Mapping[ExecutionConfig, Session], feeds: Sequence[Feed], how: _How
) -> dict[ExecutionConfig, np.ndarray]:
    """Milliseconds of each round; {} where there was no time for the fewest rounds."""

    def step(number: int) -> None:
        how.budget.check()
        how.progress(f"{role}: round {number}")

    runs = {execution: _round(session, feeds) for execution, session in sessions.items()}
    seconds = how.budget.timing(how.seconds)
    try:
        times = paired_timing(runs, seconds, ROUNDS, how.clock, step, how.quiet)
    except TimeOver:
        return {}
    return times if all(len(values) >= ROUNDS[0] for values in times.values()) else {}


def _round(session: Session, feeds: Sequence[Feed]) -> Callable[[int], object]:
    return lambda number: session.run(feeds[number % len(feeds)])


def machine() -> dict[str, object]:
    """What a choice holds for; another runtime or processor needs a choice of its own."""
    return {
        "machine": platform.machine(),
        # This field alone: the file of a choice is named after it.
        "cpu": cpu_name(("model name",)) or "",
        "cores": os.cpu_count(),
        "onnxruntime": onnx.version(),
    }


def runtimes() -> dict[str, str]:
    """The version of each runtime that may work here: with one more, another may be the fastest."""
    return {name: version(name) for name in providers()}


def prepare_store(bundle: Bundle) -> Path:
    """The file that `store` will write. Raises TuneError where it could not: before the work."""
    path = _file(bundle)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from None
    return path


def store(bundle: Bundle, results: Sequence[Result]) -> Path:
    """Keep the choice for this bundle on this machine; returns the file.

    Raises TuneError where it cannot be written.
    """
    path = _file(bundle)
    selected = {result.role: result.execution for result in results if result.chosen}
    content = {
        "bundle_sha256": bundle.sha256,
        "machine": machine(),
        "versions": _versions(selected.values()),
        "runtimes": runtimes(),
        "executions": {role: asdict(execution) for role, execution in selected.items()},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise _unwritable(path, error) from None
    return path


def load_tuned(
    bundle: Bundle, warn: Callable[[str], None] = _to_stderr
) -> dict[str, ExecutionConfig]:
    """The stored choice, by role; {} where there is none for this bundle on this machine.

    `warn` gets a line where there is one that cannot be used: the bundle's own graphs run then. And
    one where those are made for another machine.
    """
    chosen = _stored(bundle, warn)
    foreign = [
        f"{role} (for {', '.join(model.targets)})"
        for role, model in bundle.manifest.models.items()
        if role not in chosen and host() not in model.targets
    ]
    if foreign:
        warn(
            f"{bundle.path}: not made for this processor, which runs it all the same: "
            f"{', '.join(foreign)}; `dermedge tune` finds what runs fastest"
        )
    return chosen


@contextmanager
def chosen(executions: Mapping[str, ExecutionConfig]) -> Iterator[None]:
    """Say of a session that cannot be opened inside that `dermedge tune` chose it, where it did.

    `executions` is what `load_tuned` gave.
    """
    try:
        yield
    except SessionError as error:
        if not executions:
            raise
        raise SessionError(
            "{reason}; `dermedge tune` chose to run the networks so: run it again, or `dermedge "
            "tune --forget`",
            code="tune-choice",
            reason=error,
        ) from None


def _stored(bundle: Bundle, warn: Callable[[str], None]) -> dict[str, ExecutionConfig]:
    try:
        path = _file(bundle)
        if not path.exists():
            return {}
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is no file that dermedge wrote")
        return _choice(bundle, json.loads(path.read_bytes()))
    except OSError as error:
        reason = error.strerror or str(error)
    except TuneError:
        return {}  # no folder to keep a choice in, so there is none
    except (ValueError, RecursionError) as error:
        unread = isinstance(error, (json.JSONDecodeError, UnicodeDecodeError, RecursionError))
        reason = "it cannot be read" if unread else str(error)
    warn(f"{path}: this choice of `dermedge tune` is ignored, {reason}; run `dermedge tune` again")
    return {}


def _choice(bundle: Bundle, content: object) -> dict[str, ExecutionConfig]:
    """The executions that a stored file names. Raises ValueError, in words, where it has none."""
    if not isinstance(content, dict):
        raise ValueError("it is no file that dermedge wrote")
    entries = content.get("executions", content.get("roads"))  # "roads": of dermedge 0.1.0
    if not isinstance(entries, dict):
        raise ValueError("it is no file that dermedge wrote")
    if content.get("bundle_sha256") != bundle.sha256:
        raise ValueError("it is for another bundle")
    selected = {str(role): _execution(bundle, role, entry) for role, entry in entries.items()}
    models = bundle.manifest.models
    by_part: dict[str, ExecutionConfig] = {}
    for role, execution in selected.items():
        if by_part.setdefault(models[role].part, execution) != execution:
            raise ValueError("it runs one network in two ways")
    if content.get("machine") != machine():
        raise ValueError("it is for another machine or ONNX Runtime")
    if content.get("versions") != _versions(selected.values()):
        raise ValueError("it was found with other versions or another GPU")
    if content.get("runtimes") != runtimes():
        raise ValueError(f"it was measured with other runtimes{_changed(content.get('runtimes'))}")
    return selected


def _execution(bundle: Bundle, role: str, entry: object) -> ExecutionConfig:
    try:
        execution = ExecutionConfig(**entry)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError("it is no file that dermedge wrote") from None
    known = role in bundle.manifest.models and execution.precision in PRECISIONS
    counted = type(execution.threads) is int and 0 <= execution.threads <= MOST_THREADS
    if not known or execution.provider not in RUNTIMES or not counted:
        raise ValueError("it names what this dermedge does not know")
    try:
        graph_of(bundle, role, execution)
    except BundleError:
        reason = f"the bundle has no {execution.precision} {role} for {execution.provider}"
        raise ValueError(reason) from None
    return execution


def _changed(stored: object) -> str:
    """Which runtimes are not those of a stored choice; "" where it does not say."""
    if not isinstance(stored, dict):
        return ""
    here = runtimes()
    words = [f"{name} is new" for name in here if name not in stored]
    words += [f"{name} is gone" for name in RUNTIMES if name in stored and name not in here]
    words += [
        f"{name} has another version"
        for name, found in here.items()
        if name in stored and stored[name] != found
    ]
    return f" ({', '.join(words)})" if words else ""


def _versions(selected: Collection[ExecutionConfig]) -> dict[str, str | None]:
    """Of dermedge, and what takes a JVM or CUDA to tell, where that was chosen.

    An engine runs on the GPU alone that it was built for: with another one the choice is stale.
    """
    versions: dict[str, str | None] = {"dermedge": __version__}
    for provider in sorted({one.provider for one in selected} & {JAVA, *ENGINES}):
        try:
            versions[provider] = java.version() if provider == JAVA else tensorrt.device(provider)
        except SessionError:  # it was taken away since
            versions[provider] = None
    return versions


def forget(bundle: Bundle) -> bool:
    """Drop the stored choice, and how often `dermedge app` failed to find one; was there any?"""
    path = _file(bundle)
    chosen = path.exists()
    path.unlink(missing_ok=True)
    path.with_suffix(ATTEMPTS).unlink(missing_ok=True)
    return chosen


def _file(bundle: Bundle) -> Path:
    here = {key: value for key, value in machine().items() if key != "onnxruntime"}
    name = hashlib.sha256(json.dumps(here, sort_keys=True).encode()).hexdigest()
    try:
        return cache_folder() / "tuned" / f"{bundle.sha256[:16]}-{name[:12]}.json"
    except OSError:  # a user without a home
        raise TuneError(
            "there is no folder for what `dermedge tune` finds: set XDG_CACHE_HOME",
            code="tune-no-folder",
        ) from None


def _unwritable(path: Path, error: OSError) -> TuneError:
    return TuneError(
        "what `dermedge tune` finds cannot be kept in {folder} ({reason}): "
        "make it writable, or set XDG_CACHE_HOME to a folder that is",
        code="tune-unwritable",
        folder=path.parent,
        reason=error.strerror or str(error),
    )
