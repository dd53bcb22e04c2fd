"""Whole pipelines, picture to decision: ours, and as a user of torch would write it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from benchmarks.latency.timing import pictures
from benchmarks.peers.compared import ALIKE, Answer, Side, compared
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.image.preprocess import prepare
from dermedge.image.read import Picture, read_image
from dermedge.runtime import ExecutionConfig
from dermedge.triage import malignancy_of
from export.graph.onnx_graph import GraphModule


def pipelines(
    bundle: Bundle,
    nets: Mapping[str, GraphModule],
    tuned_executions: Mapping[str, ExecutionConfig],
    threads: int,
    seconds: float,
    progress: Callable[[str], None],
) -> list[dict]:
    """Picture to decision: ours with all that it measures, as it is and tuned, ours with no more
    than the other side does (both networks, the mask at the picture's size, the risk), and the
    other side."""
    rows = []
    shown = ", ".join(f"{role} {config}" for role, config in tuned_executions.items())
    whole, tuned = "dermedge, whole analysis", f"dermedge, whole analysis, tuned ({shown})"
    for what, source in pictures(()).items():
        picture = source.pixels if isinstance(source, Picture) else source
        shares: dict[str, list[float]] = {whole: [], tuned: []}
        sides = {
            whole: Side(
                "onnxruntime", partial(analysis_answer, bundle, threads, {}, shares[whole])
            ),
            tuned: Side(
                "dermedge",
                partial(analysis_answer, bundle, threads, tuned_executions, shares[tuned]),
            ),
            "dermedge, both networks": Side("onnxruntime", partial(_same_work, bundle, threads)),
            "torch, torchvision, PIL": Side("torch", partial(_theirs, bundle, nets)),
        }
        compared_rows = compared(what, sides, [picture], threads, seconds, progress, ALIKE)
        for row in compared_rows:
            if shares.get(row["side"]):
                row["outside_networks"] = round(float(np.median(shares[row["side"]])), 3)
        rows += compared_rows
    return rows


def analysis_answer(
    bundle: Bundle, threads: int, executions: Mapping[str, ExecutionConfig], shares: list[float]
) -> Answer:
    """Risk and area by `Analyzer`; `shares` gets what of each analysis is outside the networks."""
    analyzer = Analyzer(bundle, threads=threads, executions=executions)

    def answer(source) -> np.ndarray:
        picture = source if isinstance(source, bytes) else Picture(source, *source.shape[:2])
        analysis = analyzer.analyze(picture)
        spent = analysis.timing_ms
        shares.append(1 - (spent["segmenter"] + spent["classifier"]) / spent["total"])
        area = analysis.lesion.area_px / (analysis.height * analysis.width)
        return np.array([analysis.malignancy, area])

    return answer


def _same_work(bundle: Bundle, threads: int) -> Answer:
    """The mask at the picture's size and the risk, without quality, outline and ABCD."""
    networks = Analyzer(bundle, threads=threads).networks()

    def answer(source) -> np.ndarray:
        pixels = read_image(source).pixels if isinstance(source, bytes) else source
        square, placement = prepare(pixels, networks["segmenter"].model.preprocessing)
        certainty = networks["segmenter"].run(square)["mask"]
        mask = placement.restore(certainty) >= bundle.manifest.thresholds.mask
        square, _ = prepare(pixels, networks["classifier"].model.preprocessing)
        risk = _risk(bundle, networks["classifier"].run(square)["probabilities"])
        return np.array([risk, mask.mean()])

    return answer


def _theirs(bundle: Bundle, nets: Mapping[str, GraphModule]) -> Answer:
    """As the tutorials do it: PIL opens, torchvision resizes and pads, torch answers."""
    mask_at = bundle.manifest.thresholds.mask
    sizes = {role: m.preprocessing.size for role, m in bundle.manifest.models.items()}

    def square(image, size: int) -> torch.Tensor:
        scale = size / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        small = v2.functional.resize(image, [height, width], antialias=True)
        left, top = (size - width) // 2, (size - height) // 2
        edges = [left, top, size - width - left, size - height - top]
        padded = v2.functional.pad(small, edges)
        return v2.functional.pil_to_tensor(padded).permute(1, 2, 0)[None]

    @torch.inference_mode()
    def answer(source) -> np.ndarray:
        if isinstance(source, bytes):
            image = Image.open(io.BytesIO(source)).convert("RGB")
        else:
            image = Image.fromarray(source)
        outputs = nets["segmenter"](square(image, sizes["segmenter"]))
        mask = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        side = max(image.size)
        whole = v2.functional.resize(mask[None], [side, side], antialias=False)
        mask = v2.functional.center_crop(whole, [image.height, image.width]) >= mask_at
        outputs = nets["classifier"](square(image, sizes["classifier"]))
        return np.array([_risk(bundle, outputs[0].numpy()), float(mask.float().mean())])

    return answer


def _risk(bundle: Bundle, probabilities: np.ndarray) -> float:
    return malignancy_of(np.asarray(probabilities).ravel(), bundle.manifest.labels)
