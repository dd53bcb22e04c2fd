"""The table of `dermedge peers`: networks in other runtimes, then whole pipelines.

Every side answers the same pictures, its answers are compared before it may be timed, and all take
turns in one process with the same number of threads.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.peers import runtimes
from benchmarks.peers.compared import SAME, Side, compared
from benchmarks.peers.pipelines import pipelines
from benchmarks.peers.runtimes import OUTPUT
from dermedge import UserError
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.evaluation.provenance import commit
from dermedge.image.preprocess import prepare
from dermedge.runtime import OPENVINO, ExecutionConfig
from dermedge.runtime.parity import FROM_FP32
from dermedge.tune import machine, tune
from export.graph.onnx_graph import GraphModule
from train.run import load_model, load_run

PICTURES = 8
COLUMNS = (
    *("what", "side", "version", "threads", "turns", "ms", "p90_ms"),
    *("times_of_ours", "times_of_ours_low", "times_of_ours_high", "outside_networks"),
    *("difference", "reason"),
    *("bundle_sha256", "commit", "hardware", "date", "command"),
)


def measure(
    bundle: Bundle,
    runs: Sequence[str | Path],
    threads: int,
    seconds: float,
    command: str,
    progress: Callable[[str], None] = lambda text: None,
) -> list[dict[str, object]]:
    """Time every side that is installed.

    Parameters
    ----------
    runs : folders of the runs that the bundle's networks came from.
    seconds : for each network and each whole pipeline, all sides together.

    Returns
    -------
    One dict of `COLUMNS` a side. `times_of_ours`: its time over that of the bundle's graph in
    ONNX Runtime (or, of pipelines, of `Analyzer`), with a 95 % interval; above 1 ours is faster.
    "dermedge, tuned" is what `dermedge tune` finds for so many threads, in brackets.
    `outside_networks`: share of an analysis that is not spent in the networks.

    Raises
    ------
    UserError : a run's network is not that of the bundle.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    nets = networks(bundle, runs)
    rows, executions = [], tuned_executions(bundle, threads, seconds, progress)
    # First: the other runtimes bring threads and memory of their own into the process.
    whole = pipelines(bundle, nets, executions, threads, seconds, progress)
    with tempfile.TemporaryDirectory() as folder:
        for role, net in nets.items():
            pictures = squares(bundle, role)
            sides = _sides(bundle, role, net, pictures[0], executions[role], threads, Path(folder))
            limit = SAME[OUTPUT[role]]
            rows += compared(role, sides, pictures, threads, seconds, progress, limit)
    common = {
        "bundle_sha256": bundle.sha256[:16],
        "commit": commit("+"),
        "hardware": f"{machine()['cpu'] or machine()['machine']}, {machine()['cores']} cores",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
    }
    return [{name: (row | common).get(name) for name in COLUMNS} for row in rows + whole]


def _sides(
    bundle: Bundle,
    role: str,
    net: GraphModule,
    square: np.ndarray,
    tuned: ExecutionConfig,
    threads: int,
    folder: Path,
) -> dict[str, Side]:
    """Name to side of a network; ours is the first."""
    ours = partial(runtimes.session, bundle, role, threads)
    return {
        "ONNX Runtime": Side("onnxruntime", partial(ours, "cpu")),
        f"dermedge, tuned ({tuned})": Side(
            "dermedge",
            partial(runtimes.execution, bundle, role, tuned),
            FROM_FP32[tuned.precision].of(OUTPUT[role]),
        ),
        "OpenVINO": Side("openvino", partial(ours, OPENVINO)),
        "ExecuTorch XNNPACK": Side("executorch", partial(runtimes.executorch_answer, net, square)),
        "LiteRT": Side("ai-edge-litert", partial(runtimes.litert_answer, net, square, threads)),
        "ncnn": Side("ncnn", partial(runtimes.ncnn_answer, net, square, folder, threads)),
        "MNN": Side("MNN", partial(runtimes.mnn_answer, bundle, role, square, folder, threads)),
        "torch eager": Side("torch", partial(runtimes.torch_answer, net)),
        "torch compiled": Side("torch", lambda: runtimes.torch_answer(torch.compile(net))),
    }


def networks(bundle: Bundle, runs: Sequence[str | Path]) -> dict[str, GraphModule]:
    """Role to the torch network that the bundle's graph was made from.

    Raises UserError where no run is of a role's network.
    """
    nets: dict[str, GraphModule] = {}
    loaded = [load_run(Path(folder)) for folder in runs]
    for role, model in bundle.manifest.models.items():
        fitting = [run for run in loaded if run.model == model.architecture]
        if not fitting:
            raise UserError(f"--runs: none is of the {role}'s network, {model.architecture}")
        nets[role] = GraphModule(load_model(fitting[0])).eval().requires_grad_(False)
    if "classifier" in nets:
        nets["classifier"].temperature = _temperature(bundle, nets["classifier"])
    return nets


def tuned_executions(
    bundle: Bundle, threads: int, seconds: float, progress: Callable[[str], None]
) -> dict[str, ExecutionConfig]:
    """Role to the fastest execution of at most so many threads.

    Raises UserError where there is none, as of a slice for another machine.
    """
    fastest: dict[str, tuple[float, ExecutionConfig]] = {}
    for result in tune(bundle, seconds, progress=progress):
        if result.ms is None or not 0 < result.execution.threads <= threads:
            continue
        if result.role not in fastest or result.ms < fastest[result.role][0]:
            fastest[result.role] = result.ms, result.execution
    if missing := [role for role in bundle.manifest.models if role not in fastest]:
        raise UserError(
            f"{bundle.path} has no {missing[0]} to time on this processor: give a bundle that was "
            "made for it"
        )
    return {role: fastest[role][1] for role in bundle.manifest.models}


def _temperature(bundle: Bundle, net: GraphModule) -> float:
    """That of the bundle's classifier, read back: both answers give the logits up to a factor."""
    ours, theirs = (
        np.log(np.stack([answer(s) for s in squares(bundle, "classifier")]).astype(np.float64))
        for answer in (
            runtimes.session(bundle, "classifier", 1, "cpu"),
            runtimes.torch_answer(net),
        )
    )
    ours, theirs = (v - v.mean(axis=1, keepdims=True) for v in (ours, theirs))
    return float((theirs * ours).sum() / (ours * ours).sum())


def squares(bundle: Bundle, role: str) -> list[np.ndarray]:
    """Drawn pictures as a role's network takes them: uint8 (1, S, S, 3) each."""
    spec = bundle.manifest.models[role].preprocessing
    # Stacked, not given an axis by [None]: ExecuTorch refuses numpy's stride of 0.
    return np.split(
        np.stack([prepare(draw(k, size=(360, 480)).image, spec)[0] for k in range(PICTURES)]),
        PICTURES,
    )


def to_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """What `measure` gave, as a table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
