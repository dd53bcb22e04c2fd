"""What runs fastest on this device, and right: precision, runtime and threads of each network.

Every graph of a bundle has passed the export's acceptance on real pictures. Here each way to run it
has to show on this device that it computes the same, output by output, before it may be timed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dermedge import UserError, __version__
from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import PRECISIONS, Model
from dermedge.data import synthetic as procedural
from dermedge.evaluation.paired_timing import paired_timing, ratio
from dermedge.evaluation.provenance import cpu_name, usable_cores
from dermedge.files import cache_folder, write_atomic
from dermedge.image.preprocess import prepare
from dermedge.metadata import encode
from dermedge.runtime import (
    ENGINES,
    JAVA,
    OPENVINO,
    RUNTIMES,
    ExecutionConfig,
    Session,
    SessionError,
    host,
    java,
    onnx,
    open_session,
    parity,
    target,
)
from dermedge.runtime.parity import FROM_FP32, SAME_GRAPH

PICTURES = 16  # drawn ones, that an execution is checked on
ROUNDS = (10, 400)  # fewest and most rounds of all executions
_MOST_BYTES, _MOST_THREADS = 64 * 1024, 1024  # of a stored choice
_OWN_THREADS = ("cpu", "xnnpack", OPENVINO, JAVA)  # runtimes that use the processor's cores

Open = Callable[[bytes, int, str, str, str], Session]
Feed = dict[str, np.ndarray]
Outputs = dict[str, np.ndarray]  # output's name to its values for all pictures


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


def providers() -> list[str]:
    """The runtimes that may work here."""
    names = onnx.available()
    if find_spec("openvino"):
        names.append(OPENVINO)
    if java.installed():
        names.append(JAVA)
    modules = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
    return names + [name for name in ENGINES if any(map(find_spec, modules[name]))]


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


def tune(
    bundle: Bundle,
    seconds: float,
    opener: Open = open_session,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Result]:
    """Try every execution of every network, and choose.

    Parameters
    ----------
    seconds : for timing each network; every execution is run `ROUNDS[0]` times at least.
    opener, clock : as `open_session` and `time.perf_counter`.

    Returns
    -------
    One result an execution. The one that is chosen is the fastest whose interval lies above the
    bundle's own graph on the processor, or else that one.
    """
    results: list[Result] = []
    parts: dict[str, str] = {}
    for role, model in bundle.manifest.models.items():
        if model.part in parts:  # one network that plays both roles runs once
            same = [replace(r, role=role) for r in results if r.role == parts[model.part]]
            results += same
            continue
        parts[model.part] = role
        results += _tune_role(bundle, role, seconds, opener, clock, progress)
    return results


def _tune_role(
    bundle: Bundle,
    role: str,
    seconds: float,
    opener: Open,
    clock: Callable[[], float],
    progress: Callable[[str], None],
) -> list[Result]:
    model = bundle.manifest.models[role]
    pictures = [procedural.draw(seed, size=(192, 256)).image for seed in range(PICTURES)]
    feeds = _feeds([prepare(picture, model.preprocessing)[0] for picture in pictures], model)
    configurations = executions(bundle, role)
    sessions: dict[ExecutionConfig, Session] = {}
    reasons: dict[ExecutionConfig, str] = {}
    references = _References(bundle, role, opener, feeds)
    for execution in configurations:
        progress(f"{role}: checking {execution}")
        try:
            session = opener(*references.graph(execution), execution.precision)
            reason = references.mismatch(execution, _outputs(session, feeds))
        except SessionError as error:
            reason = str(error)
        if reason:
            reasons[execution] = reason
        else:
            sessions[execution] = session
    if configurations[0] in reasons:
        raise SessionError(
            "the {role} does not run as the bundle has it ({reason}): run `dermedge verify`",
            code="tune-own-graph",
            role=role,
            reason=reasons[configurations[0]],
        )
    runs = {execution: _round(session, feeds) for execution, session in sessions.items()}
    times = paired_timing(runs, seconds, ROUNDS, clock, lambda n: progress(f"{role}: round {n}"))
    results = []
    for execution in configurations:
        if execution in reasons:
            results.append(Result(role, execution, reason=reasons[execution]))
        else:
            timing: dict[str, Any] = ratio(times[configurations[0]], times[execution])
            results.append(Result(role, execution, **timing))
    faster = [(r.ms, r) for r in results if r.ms is not None and r.low is not None and r.low > 1]
    best = min(faster, key=lambda pair: pair[0])[1] if faster else results[0]
    return [replace(result, chosen=result is best) for result in results]


class _References:
    """What each graph of a role answers in ONNX Runtime on the processor, computed when asked."""

    def __init__(self, bundle: Bundle, role: str, opener: Open, feeds: Sequence[Feed]):
        self._bundle, self._role, self._opener, self._feeds = bundle, role, opener, feeds
        self._own = bundle.manifest.models[role]
        self._known: dict[str, Outputs] = {}

    def graph(self, execution: ExecutionConfig) -> tuple[bytes, int, str, str]:
        """What `open_session` takes for an execution, but for its precision."""
        variant = self._bundle.variant(self._role, execution.precision, target(execution.provider))
        graph = self._bundle.sliced({self._role: variant}).model(self._role)
        return graph, execution.threads, execution.provider, self._bundle.sha256

    def mismatch(self, execution: ExecutionConfig, outputs: Outputs) -> str:
        """Why an execution's answers are not to be trusted; "" where they are."""
        if not parity.finite(outputs):
            return "it gives no finite numbers"
        own = parity.mismatch(
            self._of(self.graph(execution)[0], execution.precision),
            outputs,
            SAME_GRAPH[execution.precision],
        )
        if own:
            return f"it differs from the same graph in ONNX Runtime: {own}"
        exact = self._own.variant("fp32", host()) or self._own
        first = self._of(self._bundle.part(exact.part), exact.precision)
        other = parity.mismatch(first, outputs, FROM_FP32[execution.precision])
        return f"it differs from {exact.precision}: {other}" if other else ""

    def _of(self, graph: bytes, precision: str) -> Outputs:
        key = hashlib.sha256(graph).hexdigest()
        if key not in self._known:
            session = self._opener(graph, 0, "cpu", self._bundle.sha256, precision)
            self._known[key] = _outputs(session, self._feeds)
        return self._known[key]


def _feeds(squares: Sequence[np.ndarray], model: Model) -> list[Feed]:
    """What the network is run on: every other picture comes with what is known of a person."""
    person: dict[str, Any] = {"age": 50.0, "sex": "female", "site": "back"}
    feeds = []
    for number, square in enumerate(squares):
        feed = {"image": np.ascontiguousarray(square[None])}
        if model.metadata:
            feed["metadata"] = encode(model.metadata, **(person if number % 2 else {}))[None]
        feeds.append(feed)
    return feeds


def _round(session: Session, feeds: Sequence[Feed]) -> Callable[[int], object]:
    return lambda number: session.run(feeds[number % len(feeds)])


def _outputs(session: Session, feeds: Sequence[Feed]) -> Outputs:
    return parity.stacked([session.run(feed) for feed in feeds])


def machine() -> dict[str, object]:
    """What a choice holds for; another runtime or processor needs a choice of its own."""
    return {
        "machine": platform.machine(),
        # This field alone: the file of a choice is named after it.
        "cpu": cpu_name(("model name",)) or "",
        "cores": os.cpu_count(),
        "onnxruntime": onnx.version(),
    }


def prepare_store(bundle: Bundle) -> Path:
    """The file that `store` will write. Raises TuneError where it could not: before the work."""
    path = _file(bundle)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
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

    `warn` gets one line where there is one that cannot be used: the bundle's own graphs run then.
    """
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
        reason = "it cannot be read" if isinstance(error, json.JSONDecodeError) else str(error)
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
        raise ValueError("it was found with other versions")
    return selected


def _execution(bundle: Bundle, role: str, entry: object) -> ExecutionConfig:
    try:
        execution = ExecutionConfig(**entry)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError("it is no file that dermedge wrote") from None
    known = role in bundle.manifest.models and execution.precision in PRECISIONS
    counted = type(execution.threads) is int and 0 <= execution.threads <= _MOST_THREADS
    if not known or execution.provider not in RUNTIMES or not counted:
        raise ValueError("it names what this dermedge does not know")
    if (
        bundle.manifest.models[role].variant(execution.precision, target(execution.provider))
        is None
    ):
        raise ValueError(f"the bundle has no {execution.precision} {role} for {execution.provider}")
    return execution


def _versions(selected: Collection[ExecutionConfig]) -> dict[str, str | None]:
    """Of dermedge and of what the executions need beside ONNX Runtime; engines carry their own."""
    versions: dict[str, str | None] = {"dermedge": __version__}
    if any(execution.provider == OPENVINO for execution in selected):
        try:
            versions[OPENVINO] = version(OPENVINO)
        except PackageNotFoundError:
            versions[OPENVINO] = None
    if any(execution.provider == JAVA for execution in selected):
        try:
            versions[JAVA] = java.version()
        except SessionError:  # it was taken away since
            versions[JAVA] = None
    return versions


def forget(bundle: Bundle) -> None:
    """Drop the stored choice, where there is one."""
    _file(bundle).unlink(missing_ok=True)


def _file(bundle: Bundle) -> Path:
    here = {key: value for key, value in machine().items() if key != "onnxruntime"}
    name = hashlib.sha256(json.dumps(here, sort_keys=True).encode()).hexdigest()
    try:
        return cache_folder() / "tuned" / f"{bundle.sha256[:16]}-{name[:12]}.json"
    except RuntimeError:  # a user without a home
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
