"""A network in other runtimes: each function loads it and returns what answers a square.

A square is uint8 (1, S, S, 3), the answer flat. What a runtime lacks raises whatever its converter
raises; ImportError where it is not installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.peers.compared import Answer
from dermedge.analyzer import with_executions
from dermedge.bundle.bundle import Bundle
from dermedge.runtime import ExecutionConfig, SessionError, open_session
from dermedge.runtime.parity import MASK, PROBABILITIES

OUTPUT = {"segmenter": MASK, "classifier": PROBABILITIES}


def session(bundle: Bundle, role: str, threads: int, provider: str) -> Answer:
    """The bundle's graph in one of dermedge's runtimes."""
    precision = bundle.manifest.models[role].precision
    opened = open_session(bundle.model(role), threads, provider, bundle.sha256, precision)
    return lambda square: opened.run({"image": square})[OUTPUT[role]].ravel()


def execution(bundle: Bundle, role: str, config: ExecutionConfig) -> Answer:
    """The bundle's graph as `config` runs it."""
    return session(with_executions(bundle, {role: config}), role, config.threads, config.provider)


def _first(outputs: Any) -> np.ndarray:
    first = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
    return np.asarray(first).ravel()


def torch_answer(net: Callable[..., Any]) -> Answer:
    """The network itself."""

    def answer(square: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return _first(net(torch.from_numpy(square)))

    return answer


def executorch_answer(net: nn.Module, square: np.ndarray) -> Answer:
    """ExecuTorch with XNNPACK."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    program = torch.export.export(net, (torch.from_numpy(square),)).run_decompositions()
    _without_broadcasts(program.graph_module)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    buffer = lowered.to_executorch().buffer
    loaded = Runtime.get().load_program(buffer)
    method = loaded.load_method("forward")

    def answer(one: np.ndarray, _kept=(buffer, loaded)) -> np.ndarray:
        # Both are kept: the method reads from the buffer's memory.
        return _first(method.execute([torch.from_numpy(one.copy())]))

    return answer


def _without_broadcasts(module: torch.fx.GraphModule) -> None:
    """ExecuTorch has no tensors of stride 0, which `expand` makes: copy them."""
    for node in list(module.graph.nodes):
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, torch.Tensor) and 0 in value.stride():
            layout: dict[str, Any] = {"memory_format": torch.contiguous_format}
            with module.graph.inserting_after(node):
                copy = module.graph.call_function(torch.ops.aten.clone.default, (node,), layout)
                copy.meta["val"] = value.clone(**layout)
            node.replace_all_uses_with(copy, delete_user_cb=lambda user, c=copy: user is not c)
    module.recompile()


def litert_answer(net: nn.Module, square: np.ndarray, threads: int) -> Answer:
    """LiteRT."""
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.tflite")
        litert_torch.convert(net, (torch.from_numpy(square),)).export(str(path))
        graph = path.read_bytes()
    interpreter = Interpreter(model_content=graph, num_threads=threads)
    interpreter.allocate_tensors()
    source, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()

    def answer(one: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], one)
        interpreter.invoke()
        return interpreter.get_tensor(outputs[0]["index"]).ravel()

    return answer


def ncnn_answer(net: nn.Module, square: np.ndarray, folder: Path, threads: int) -> Answer:
    """ncnn, by way of pnnx; `folder` takes its files."""
    import ncnn
    import pnnx

    traced = torch.jit.trace(net, torch.from_numpy(square), check_trace=False)
    traced.save(str(folder / "net.pt"))
    shape = ",".join(map(str, square.shape))
    done = subprocess.run(
        [pnnx.EXEC_PATH, "net.pt", f"inputshape=[{shape}]u8"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SessionError(f"pnnx: {done.stderr.strip()[-100:]}")
    graph = ncnn.Net()
    graph.opt.num_threads = threads
    graph.opt.use_fp16_storage = graph.opt.use_fp16_arithmetic = graph.opt.use_bf16_storage = False
    # ncnn computes in float throughout, and has no layer that turns bytes into numbers.
    param = (folder / "net.ncnn.param").read_text().replace("Tensor.to ", "Noop ")
    if graph.load_param_mem(param) or graph.load_model(str(folder / "net.ncnn.bin")):
        raise SessionError("ncnn has not all layers of this network")

    def answer(one: np.ndarray) -> np.ndarray:
        with graph.create_extractor() as extractor:
            # Its own copy: ncnn fails on numpy's memory where its padding differs.
            extractor.input("in0", ncnn.Mat(one[0].astype(np.float32)).clone())
            failed, output = extractor.extract("out0")
            if failed:
                raise SessionError("ncnn did not run this network")
            return np.array(output).ravel().copy()

    return answer


def mnn_answer(bundle: Bundle, role: str, square: np.ndarray, folder: Path, threads: int) -> Answer:
    """MNN; `folder` takes its files."""
    import MNN

    # Its command `mnnconvert` installs a package and reports to its maker; what it wraps does not.
    convert = "import sys, _tools; sys.exit(not _tools.mnnconvert(sys.argv))"
    (folder / "net.onnx").write_bytes(bundle.model(role))
    command = [sys.executable, "-c", convert, "-f", "ONNX", "--modelFile", "net.onnx"]
    command += ["--MNNModel", "net.mnn", "--bizCode", "none"]
    done = subprocess.run(command, cwd=folder, capture_output=True)
    if done.returncode:
        raise SessionError(f"its converter failed: {done.stderr.decode().strip()[-100:]}")
    plan = {"backend": "CPU", "numThread": threads, "precision": "high"}
    runtime = MNN.nn.create_runtime_manager((plan,))
    graph = MNN.nn.load_module_from_file(
        str(folder / "net.mnn"), ["image"], [OUTPUT[role]], runtime_manager=runtime
    )

    def answer(one: np.ndarray) -> np.ndarray:
        image = MNN.expr.placeholder(list(square.shape), MNN.expr.NCHW, MNN.expr.uint8)
        image.write(one)
        return np.array(graph.forward([image])[0].read()).ravel()

    return answer
