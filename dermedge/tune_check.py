"""Whether a way to run a network computes the same as the bundle's own graph does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import Model, Variant
from dermedge.metadata import encode
from dermedge.network import graph_of
from dermedge.runtime import ExecutionConfig, Session, host, parity
from dermedge.runtime.parity import FROM_FP32, SAME_GRAPH

# The first arguments of `open_session`: graph, threads, provider, SHA-256, precision, targets.
SessionWords = tuple[bytes, int, str, str, str, tuple[str, ...]]
Open = Callable[..., Session]
Feed = dict[str, np.ndarray]
Outputs = dict[str, np.ndarray]  # output's name to its values for all pictures


class References:
    """What each graph of a role answers in ONNX Runtime on the processor, computed when asked."""

    def __init__(self, bundle: Bundle, role: str, opener: Open, feeds: Sequence[Feed]):
        self._bundle, self._role, self._opener, self._feeds = bundle, role, opener, feeds
        self._own = bundle.manifest.models[role]
        self._known: dict[str, Outputs] = {}

    def session(self, execution: ExecutionConfig) -> SessionWords:
        """What `open_session` takes for an execution."""
        variant = graph_of(self._bundle, self._role, execution)
        return self._words(variant, execution.threads, execution.provider)

    def _words(self, variant: Variant, threads: int = 0, provider: str = "cpu") -> SessionWords:
        graph = self._bundle.part(variant.part)
        sha256 = self._bundle.sha256
        return graph, threads, provider, sha256, variant.precision, variant.targets

    def mismatch(
        self, execution: ExecutionConfig, outputs: Outputs, step: Callable[[], None]
    ) -> str:
        """Why an execution's answers are not to be trusted; "" where they are.

        `step` is called before each run of a reference.
        """
        if not parity.finite(outputs):
            return "it gives no finite numbers"
        own = parity.mismatch(
            self._of(graph_of(self._bundle, self._role, execution), step),
            outputs,
            SAME_GRAPH[execution.precision],
        )
        if own:
            return f"it differs from the same graph in ONNX Runtime: {own}"
        exact = self._own.variant("fp32", host()) or self._own.first
        first = self._of(exact, step)
        other = parity.mismatch(first, outputs, FROM_FP32[execution.precision])
        return f"it differs from {exact.precision}: {other}" if other else ""

    def _of(self, variant: Variant, step: Callable[[], None]) -> Outputs:
        if variant.part not in self._known:
            session = self._opener(*self._words(variant))
            self._known[variant.part] = answers(session, self._feeds, step)
        return self._known[variant.part]


def network_feeds(squares: Sequence[np.ndarray], model: Model) -> list[Feed]:
    """What the network is run on: every other picture comes with what is known of a person."""
    person: dict[str, Any] = {"age": 50.0, "sex": "female", "site": "back"}
    feeds = []
    for number, square in enumerate(squares):
        feed = {"image": np.ascontiguousarray(square[None])}
        if model.metadata:
            feed["metadata"] = encode(model.metadata, **(person if number % 2 else {}))[None]
        feeds.append(feed)
    return feeds


def answers(session: Session, feeds: Sequence[Feed], step: Callable[[], None]) -> Outputs:
    """What a session gives for all pictures; `step` is called before each."""
    outputs = []
    for feed in feeds:
        step()
        outputs.append(session.run(feed))
    return parity.stacked(outputs)
