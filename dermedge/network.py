"""One network of a bundle: loaded, checked against the manifest, run under a driver."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from dermedge.bundle.bundle import Bundle
from dermedge.bundle.manifest import BundleError, Manifest, Variant
from dermedge.metadata import encode, width
from dermedge.runtime import ExecutionConfig, Session, SessionError, open_session, target
from dermedge.text import brief

OUTPUTS = {"segmenter": "mask", "classifier": "probabilities"}
# Axes of the square input that test-time augmentation mirrors; the picture as it is comes first.
_VIEWS = ((), (1,), (0,), (0, 1))
Outputs = dict[str, np.ndarray]
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Inference:
    """One run of a graph that a driver is asked for: the session and its inputs by name."""

    network: str  # for messages
    session: Session
    feeds: dict[str, np.ndarray]

    def run(self) -> Outputs:
        """Run it, and wait. Raises SessionError where it cannot be computed."""
        try:
            return self.session.run(self.feeds)
        except (SessionError, MemoryError):
            raise
        # The runtimes' exceptions share no base class.
        except Exception as error:
            raise SessionError(
                "the {network} cannot be computed: {reason}",
                code="session.run",
                network=self.network,
                reason=brief(error),
            ) from None


# Yields what is to be run, is sent the graph's outputs, and returns its result.
Steps = Generator[Inference, Outputs, Result]


def drive(steps: Steps[Result], run: Callable[[Inference], Outputs] = Inference.run) -> Result:
    """Run `steps` to their end, waiting for each inference.

    What must not block, such as a browser's thread, drives the same steps by `await` instead.
    """
    try:
        inference = next(steps)
        while True:
            inference = steps.send(run(inference))
    except StopIteration as end:
        result: Result = end.value
        return result


def graph_of(bundle: Bundle, role: str, execution: ExecutionConfig) -> Variant:
    """The graph of a role that an execution runs.

    The first graph runs on the processor whatever machine it was made for, and is computed as it is
    there: a slice for TensorRT holds no other one to begin with.

    Raises BundleError where the bundle has none of this precision for the execution's machine.
    """
    model = bundle.manifest.models[role]
    made = model.variant(execution.precision, target(execution.provider))
    if made is None and (execution.precision, execution.provider) == (model.precision, "cpu"):
        return model.first
    return made or bundle.variant(role, execution.precision, target(execution.provider))


class Network:
    """One graph of a bundle, loaded and checked. Not thread-safe."""

    def __init__(
        self,
        bundle: Bundle,
        roles: tuple[str, ...],
        threads: int = 0,
        views: int = 1,
        provider: str = "cpu",
    ):
        """Load the graph that plays `roles`.

        Parameters
        ----------
        bundle : an opened bundle.
        roles : one of `dermedge.bundle.manifest.ROLES`, or both where one part plays both.
        threads, provider : as `dermedge.runtime.open_session` takes them.
        views : 1, or 4 for test-time augmentation: the picture and its three mirrors.

        Raises
        ------
        BundleError
            Where the graph does not fit the manifest (size, labels, metadata, thresholds).
        SessionError
            Where the runtime does not load it.
        """
        if views not in (1, len(_VIEWS)):
            raise ValueError(f"views must be 1 or {len(_VIEWS)}, got {views!r}")
        self.model = bundle.manifest.models[roles[0]]
        self._name = f"{' and '.join(roles)} of {bundle.path}"
        self._views = _VIEWS[:views]
        graph, precision = bundle.model(roles[0]), self.model.precision
        targets = self.model.targets
        self._session = open_session(graph, threads, provider, bundle.sha256, precision, targets)
        self.runtime = self._session.runtime
        self.embedding: int | None = None  # length of the output `embedding`, where there is one
        self.gives = frozenset(item.name for item in self._session.outputs)
        self._check_inputs()
        self._check_outputs(roles, bundle.manifest)

    def _refuse(self, reason: str) -> None:
        raise BundleError(
            "the {network} is refused: it {reason}",
            code="bundle.graph",
            network=self._name,
            reason=reason,
        )

    def _check_inputs(self) -> None:
        size, fields = self.model.preprocessing.size, width(self.model.metadata)
        wanted: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "image": ((1, size, size, 3), np.dtype(np.uint8))
        }
        if fields:
            wanted["metadata"] = ((1, fields), np.dtype(np.float32))
        if {item.name: (item.shape, item.dtype) for item in self._session.inputs} != wanted:
            also = f" and float32 'metadata' of 1x{fields}" if fields else ""
            self._refuse(f"does not take uint8 'image' of 1x{size}x{size}x3{also}, and only that")

    def _check_outputs(self, roles: tuple[str, ...], manifest: Manifest) -> None:
        declared = {item.name: (item.shape, item.dtype) for item in self._session.outputs}
        size, labels = self.model.preprocessing.size, len(manifest.labels)
        shapes: dict[str, tuple[int, ...]] = {
            "segmenter": (1, size, size),
            "classifier": (1, labels),
        }
        for role in roles:
            if declared.get(OUTPUTS[role]) != (shapes[role], np.dtype(np.float32)):
                self._refuse(
                    f"does not give float32 {OUTPUTS[role]!r} of "
                    f"{'x'.join(map(str, shapes[role]))}, as its labels and size demand"
                )
        if "classifier" not in roles:
            return
        forms = {"activation": (1, labels, None, None), "embedding": (1, None), "distance": (1, 1)}
        for name, form in forms.items():
            if name not in declared:
                continue
            shape, dtype = declared[name]
            fits = len(shape) == len(form) and all(
                side == wanted or wanted is None for side, wanted in zip(shape, form, strict=True)
            )
            if not fits or dtype != np.float32:
                self._refuse(f"gives {name!r} of a shape that is not its own")
        if "embedding" in declared:
            self.embedding = declared["embedding"][0][1]
        if manifest.thresholds.unfamiliar is not None and "distance" not in declared:
            self._refuse("gives no 'distance', though there is a threshold for it")

    def run(self, square: np.ndarray, metadata: Mapping[str, Any] | None = None) -> Outputs:
        """`steps`, driven to their end."""
        return drive(self.steps(square, metadata))

    def steps(
        self, square: np.ndarray, metadata: Mapping[str, Any] | None = None
    ) -> Steps[Outputs]:
        """The graph's outputs, without their first axis, by name.

        Maps and probabilities are means over the views; `embedding` and `distance` are those of
        the picture as it is, which the bundle's cases and threshold were made with.

        Parameters
        ----------
        square : uint8 (S, S, 3) RGB, from `dermedge.image.preprocess.prepare`.
        metadata : age, sex and site, as far as known, for `dermedge.metadata.encode`. What the
            network does not take is ignored.

        Raises SessionError where the network gives no finite numbers.
        """
        known = {}
        if self.model.metadata:
            known["metadata"] = encode(self.model.metadata, **(metadata or {}))[None]
        by_name: dict[str, list[np.ndarray]] = {}
        for axes in self._views:
            image = np.ascontiguousarray(np.flip(square, axes)) if axes else square
            feeds = {"image": image[None], **known}
            outputs = yield Inference(self._name, self._session, feeds)
            for name, value in outputs.items():
                # Half precision overflows without an error; every comparison with NaN says "low".
                # A single non-finite value makes the sum non-finite.
                if not np.isfinite(value.sum()):
                    raise SessionError(
                        "the {network} gave no finite numbers",
                        code="session.nan",
                        network=self._name,
                    )
                if axes and value.ndim > 2:  # a map: its last two axes are those of the picture
                    value = np.flip(value, tuple(axis - 2 for axis in axes))
                by_name.setdefault(name, []).append(value[0])
        return {
            name: values[0]
            if len(values) == 1 or name in ("embedding", "distance")
            else np.mean(values, axis=0)
            for name, values in by_name.items()
        }
