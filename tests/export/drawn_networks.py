"""Networks with random weights, their graphs, and drawn pictures to feed them with."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from dermedge.data import synthetic
from dermedge.image.preprocess import Preprocessing, prepare
from dermedge.metadata import encode
from dermedge.runtime import open_session
from export.calibration.ood import fit_ood
from export.graph.onnx_graph import GraphModule, to_onnx
from train.models import MODELS, Normalized, build_model

SIZE = 64
LABELS = ("bcc", "mel", "nv")


@cache
def squares() -> tuple[np.ndarray, ...]:
    """Eight drawn pictures as a network of SIZE is fed with them."""
    spec = Preprocessing(size=SIZE)
    drawn = [synthetic.draw(seed, size=(96, 128)).image for seed in range(8)]
    return tuple(prepare(image, spec)[0] for image in drawn)


def lively(name: str, metadata: tuple[str, ...] = ()) -> Normalized:
    """A network with random weights whose answers depend on the picture.

    As built, batch norm passes so little on that any two pictures get one answer, and every
    graph would seem equal.
    """
    torch.manual_seed(0)
    model = build_model(name, LABELS, metadata=metadata)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # All of the pictures' statistics make a random U-Net blow rounding up a hundredfold.
            module.momentum = 1.0 if model.kind == "classifier" else 0.9
    with torch.no_grad():
        model.train()(torch.from_numpy(np.stack(squares())))
    return model.eval()


def calibrated(model: Normalized, temperature: float = 1.0) -> GraphModule:
    """The network of a bundle; the drawn pictures are what is in its distribution."""
    if model.kind == "segmenter":
        return GraphModule(model)
    stacked = torch.from_numpy(np.stack(squares()))
    with torch.inference_mode():
        features = model.explain(stacked)["features"].numpy()
    return GraphModule(model, temperature, fit_ood(features))


def feeds_of(network: GraphModule, pictures=None) -> list[dict[str, np.ndarray]]:
    """The pictures, each of another person where the network takes metadata."""
    pictures = squares() if pictures is None else pictures
    known = [{"age": 5.0 + 10 * i, "sex": ("male", "female")[i % 2]} for i in range(len(pictures))]
    feeds = [{**network.sample(SIZE), "image": square[None]} for square in pictures]
    for feed, person in zip(feeds, known, strict=True):
        if "metadata" in feed:
            feed["metadata"] = encode(network.model.metadata, **person)[None]
    return feeds


@cache
def exported(name: str) -> tuple[GraphModule, bytes, list[dict[str, np.ndarray]]]:
    """A network, its graph and what to feed it with; classifiers take age and sex."""
    metadata = ("age", "sex") if MODELS[name].kind != "segmenter" else ()
    network = calibrated(lively(name, metadata), temperature=1.5)
    return network, graph_of(network), feeds_of(network)


def graph_of(network: GraphModule, weights: str = "full") -> bytes:
    return to_onnx(network, SIZE, weights)


def answers_of(graph: bytes, feeds) -> dict[str, np.ndarray]:
    session = open_session(graph, threads=1)
    answers = [session.run(inputs) for inputs in feeds]
    return {name: np.concatenate([one[name] for one in answers]) for name in answers[0]}


def probability(answers: dict[str, np.ndarray]) -> np.ndarray:
    """All probabilities, (n, m): of masks and of classes."""
    return np.concatenate(
        [
            answers[n].reshape(len(answers[n]), -1)
            for n in ("mask", "probabilities")
            if n in answers
        ],
        axis=1,
    )
