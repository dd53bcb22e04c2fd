"""An export takes seconds: what was exported once is not exported again."""

from __future__ import annotations

import hashlib

import drawn_networks
import pytest

from dermedge.files import write_atomic
from export.graph import onnx_graph
from export.quantization import candidates, rounding

_EXPORTERS = (onnx_graph, candidates, drawn_networks)
_to_onnx = onnx_graph.to_onnx


@pytest.fixture(scope="session", autouse=True)
def remembered_graphs(tmp_path_factory):
    """A network of equal weights gets the graph that it got before, also from another worker."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "graphs"
    folder.mkdir(exist_ok=True)

    def remembered(network, size: int, weights: str = "full") -> bytes:
        digest = hashlib.sha256(repr((size, weights, network.temperature)).encode())
        for name, value in network.state_dict().items():
            digest.update(f"{name} {tuple(value.shape)}".encode() + value.numpy().tobytes())
        path = folder / f"{digest.hexdigest()}.onnx"
        if not path.exists():
            write_atomic(path, _to_onnx(network, size, weights))
        return path.read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        for module in _EXPORTERS:
            patch.setattr(module, "to_onnx", remembered)
        yield


@pytest.fixture(scope="session", autouse=True)
def small_blocks():
    """Rounding takes less time where fewer weights make up for one another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding, "BLOCK", 128)
        yield


@pytest.fixture
def forgotten_graphs(monkeypatch, remembered_graphs):
    """For a test that needs a second export of one network."""
    for module in _EXPORTERS:
        monkeypatch.setattr(module, "to_onnx", _to_onnx)
