"""Whether a way to run a network computes the same as the bundle's own graph does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import Model
from dermedge.metadata import encode
from dermedge.runtime import ExecutionConfig, Session, host, parity, target
from dermedge.runtime.parity import FROM_FP32, SAME_GRAPH

Open = Callable[[bytes, int, str, str, str], Session]
Feed = dict[str, np.ndarray]
Outputs = dict[str, np.ndarray]  # output's name to its values for all pictures


class References:
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

    def mismatch(
        self, execution: ExecutionConfig, outputs: Outputs, step: Callable[[], None]
    ) -> str:
        """Why an execution's answers are not to be trusted; "" where they are.

        `step` is called before each run of a reference.
        """
        if not parity.finite(outputs):
            return "it gives no finite numbers"
        own = parity.mismatch(
            self._of(self.graph(execution)[0], execution.precision, step),
            outputs,
            SAME_GRAPH[execution.precision],
        )
        if own:
            return f"it differs from the same graph in ONNX Runtime: {own}"
        exact = self._own.variant("fp32", host()) or self._own
        first = self._of(self._bundle.part(exact.part), exact.precision, step)
        other = parity.mismatch(first, outputs, FROM_FP32[execution.precision])
        return f"it differs from {exact.precision}: {other}" if other else ""

    def _of(self, graph: bytes, precision: str, step: Callable[[], None]) -> Outputs:
        key = hashlib.sha256(graph).hexdigest()
        if key not in self._known:
            session = self._opener(graph, 0, "cpu", self._bundle.sha256, precision)
            self._known[key] = answers(session, self._feeds, step)
        return self._known[key]


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
