"""What runs fastest on this device, and right: precision, runtime and threads of each network.

Every graph of a bundle has passed the export's gate on real pictures. Here each way to run it has
to show on this device that it computes the same, before it may be timed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from dermedge import procedural
from dermedge.bundle import PRECISIONS, Bundle
from dermedge.files import cache_folder, write_atomic
from dermedge.preprocess import prepare
from dermedge.race import race, ratio
from dermedge.runtime import ENGINES, OPENVINO, Road, Session, SessionError, open_session, target
from dermedge.runtime.onnx import available

PICTURES = 16  # drawn ones, that a road is checked on
# Mean difference of a probability: from FP32, and from the same graph in ONNX Runtime.
FROM_FP32, FROM_SAME = 0.1, 0.02
ROUNDS = (10, 400)  # least and most turns of all roads
_OWN_THREADS = ("cpu", "xnnpack", OPENVINO)  # runtimes that use the processor's cores

Open = Callable[[bytes, int, str, str], Session]


@dataclass(frozen=True)
class Result:
    """One way to run one network."""

    role: str
    road: Road
    reason: str = ""  # why it was not timed; "": it was
    ms: float | None = None  # median
    ratio: float | None = None  # times as fast as the bundle's first graph on the processor
    low: float | None = None  # 95 % interval, by bootstrap over turns
    high: float | None = None
    chosen: bool = False


def providers() -> list[str]:
    """The runtimes that may work here."""
    found = available()
    if find_spec("openvino"):
        found.append(OPENVINO)
    modules = {"tensorrt": ("tensorrt",), "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
    return found + [name for name in ENGINES if any(map(find_spec, modules[name]))]


def roads(bundle: Bundle, role: str) -> list[Road]:
    """All ways to run a role's network here; the first is the bundle's own, untuned."""
    model = bundle.manifest.models[role]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [Road(model.precision, "cpu", 0)]
    for provider in providers():
        for precision in PRECISIONS:
            if model.variant(precision, target(provider)) is None:
                continue
            counts = sorted({1, 2, cores}) if provider in _OWN_THREADS else [0]
            found += [Road(precision, provider, count) for count in counts]
    return found


def tune(
    bundle: Bundle,
    seconds: float,
    opener: Open = open_session,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Result]:
    """Try every road of every network, and choose.

    Parameters
    ----------
    seconds : for timing each network; every road is run `ROUNDS[0]` times at least.
    opener, clock : as `open_session` and `time.perf_counter`.

    Returns
    -------
    One result a road. The one that is chosen is the fastest whose interval lies above the
    bundle's own graph on the processor, or else that one.
    """
    results, parts = [], {}
    for role, model in bundle.manifest.models.items():
        if model.part in parts:  # one network that plays both roles runs once
            same = [replace(r, role=role) for r in results if r.role == parts[model.part]]
            results += same
            continue
        parts[model.part] = role
        results += _tune_role(bundle, role, seconds, opener, clock, progress)
    return results


def _tune_role(bundle, role, seconds, opener, clock, progress) -> list[Result]:
    spec = bundle.manifest.models[role].preprocessing
    pictures = [procedural.draw(seed, size=(192, 256)).image for seed in range(PICTURES)]
    squares = [prepare(picture, spec)[0] for picture in pictures]
    ways = roads(bundle, role)
    sessions: dict[Road, Session] = {}
    answers: dict[Road, np.ndarray] = {}
    reasons: dict[Road, str] = {}
    for road in ways:
        progress(f"{role}: checking {road}")
        graph = bundle.sliced({role: bundle.variant(role, road.precision, target(road.provider))})
        try:
            session = opener(graph.model(role), road.threads, road.provider, bundle.sha256)
            answers[road] = _answers(session, squares)
        except SessionError as error:
            reasons[road] = str(error)
            continue
        reason = _differs(road, ways[0], answers)
        if reason:
            reasons[road] = reason
        else:
            sessions[road] = session
    ways_in = {road: _turn(session, squares) for road, session in sessions.items()}
    taken = race(ways_in, seconds, ROUNDS, clock, lambda n: progress(f"{role}: turn {n}"))
    results = [
        Result(role, road, reason=reasons[road])
        if road in reasons
        else Result(role, road, **ratio(taken[ways[0]], taken[road]))
        for road in ways
    ]
    faster = [r for r in results if r.low is not None and r.low > 1]
    best = min(faster, key=lambda r: r.ms) if faster else results[0]
    return [replace(result, chosen=result is best) for result in results]


def _turn(session: Session, squares: Sequence[np.ndarray]) -> Callable[[int], object]:
    inputs = _absent(session)
    images = [np.ascontiguousarray(square[None]) for square in squares]
    return lambda turn: session.run({"image": images[turn % len(images)], **inputs})


def _absent(session: Session) -> dict[str, np.ndarray]:
    """What else a network takes, as not known."""
    return {item.name: np.zeros(item.shape, item.dtype) for item in session.inputs[1:]}


def _answers(session: Session, squares: Sequence[np.ndarray]) -> np.ndarray:
    """All probabilities of all pictures, (n, anything)."""
    absent = _absent(session)
    found = [session.run({"image": np.ascontiguousarray(s[None]), **absent}) for s in squares]
    named = [name for name in ("mask", "probabilities") if name in found[0]]
    return np.stack([np.concatenate([one[name].ravel() for name in named]) for one in found])


def _differs(road: Road, first: Road, answers: dict[Road, np.ndarray]) -> str:
    """Why a road's answers are not to be trusted; "": they are."""
    if not np.isfinite(answers[road]).all():
        return "it gives no finite numbers"
    same = next((r for r in answers if r.precision == road.precision and r.provider == "cpu"), road)
    for other, limit in ((first, FROM_FP32), (same, FROM_SAME)):
        apart = float(np.abs(answers[road] - answers[other]).mean())
        if apart > limit:
            return f"its answers differ from those of {other} by {apart:.2g}, {limit:g} is allowed"
    return ""


def machine() -> dict[str, object]:
    """What a choice holds for; another runtime or processor needs a choice of its own."""
    import onnxruntime

    model = platform.processor()
    try:
        with open("/proc/cpuinfo") as file:
            lines = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
        model = (lines or [model])[0]
    except OSError:
        pass
    return {
        "machine": platform.machine(),
        "cpu": model,
        "cores": os.cpu_count(),
        "onnxruntime": onnxruntime.__version__,
    }


def store(bundle: Bundle, results: Sequence[Result]) -> Path:
    """Keep the choice for this bundle on this machine; returns the file."""
    path = _file(bundle)
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = {result.role: asdict(result.road) for result in results if result.chosen}
    told = {"bundle_sha256": bundle.sha256, "machine": machine(), "roads": chosen}
    write_atomic(path, json.dumps(told, indent=1) + "\n")
    return path


def load_choice(bundle: Bundle) -> dict[str, Road]:
    """The stored choice, by role; {} where there is none for this bundle on this machine."""
    try:
        told = json.loads(_file(bundle).read_text())
        if told["bundle_sha256"] != bundle.sha256 or told["machine"] != machine():
            return {}
        return {role: Road(**road) for role, road in told["roads"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # nothing, or nothing that can be read: the bundle's own graph does


def forget(bundle: Bundle) -> None:
    """Drop the stored choice, where there is one."""
    _file(bundle).unlink(missing_ok=True)


def _file(bundle: Bundle) -> Path:
    here = hashlib.sha256(json.dumps(machine(), sort_keys=True).encode()).hexdigest()
    return cache_folder() / "tuned" / f"{bundle.sha256[:16]}-{here[:12]}.json"
