"""The same networks in other runtimes, and the same decision as a user of torch would write it.

Every side answers the same pictures, its answers are compared before it may be timed, and all take
turns in one process with the same number of threads.
"""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from dermedge import UserError
from dermedge.analyzer import Analyzer
from dermedge.bundle.bundle import Bundle
from dermedge.data.synthetic import draw
from dermedge.evaluation.paired_timing import paired_timing, ratio
from dermedge.image.preprocess import prepare
from dermedge.image.read import Picture, read_image
from dermedge.runtime import OPENVINO, ExecutionConfig, SessionError, open_session, target
from dermedge.runtime.parity import FROM_FP32, MASK, PROBABILITIES, Limit
from dermedge.taxonomy import MALIGNANT
from dermedge.tune import machine, tune
from export.graph.onnx_graph import GraphModule
from train.run import commit, load_model, load_run

# Differences that still count as the same answer: of an FP32 network in another runtime, and of
# risk and area between pipelines, for PIL and OpenCV make a picture smaller differently.
SAME = {MASK: Limit(0.05, 1e-3), PROBABILITIES: Limit(1e-3, 1e-3)}
ALIKE = Limit(0.1, 0.1)
PICTURES = 8
ROUNDS = (30, 100_000)
FRAME, PHOTO = "camera frame 1280x720", "JPEG photograph 4032x3024"
OUTPUT = {"segmenter": MASK, "classifier": PROBABILITIES}
COLUMNS = (
    *("what", "side", "version", "threads", "turns", "ms", "p90_ms"),
    *("times_of_ours", "times_of_ours_low", "times_of_ours_high", "outside_networks"),
    *("difference", "reason"),
    *("bundle_sha256", "commit", "hardware", "date", "command"),
)

Answer = Callable[[np.ndarray], np.ndarray]  # uint8 (1, S, S, 3) to the probabilities, flat


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
    "dermedge, tuned" is what `dermedge tune` finds for so many threads, its road in brackets.
    `outside_networks`: share of an analysis that is not spent in the networks.

    Raises
    ------
    UserError : a run's network is not that of the bundle.
    """
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    nets = _networks(bundle, runs)
    rows, roads = [], _tuned(bundle, threads, seconds, progress)
    # First: the other runtimes bring threads and memory of their own into the process.
    pipelines = _pipelines(bundle, nets, roads, threads, seconds, progress)
    with tempfile.TemporaryDirectory() as folder:
        for role, net in nets.items():
            squares = _squares(bundle, role)
            sides: dict[str, tuple] = {
                "ONNX Runtime": ("onnxruntime", partial(_session, bundle, role, threads, "cpu")),
                f"dermedge, tuned ({roads[role]})": (
                    *("dermedge", partial(_road, bundle, role, roads[role])),
                    FROM_FP32[roads[role].precision].of(OUTPUT[role]),
                ),
                "OpenVINO": ("openvino", partial(_session, bundle, role, threads, OPENVINO)),
                "ExecuTorch XNNPACK": ("executorch", partial(_executorch, net, squares[0])),
                "LiteRT": ("ai-edge-litert", partial(_litert, net, squares[0], threads)),
                "ncnn": ("ncnn", partial(_ncnn, net, squares[0], Path(folder), threads)),
                "MNN": ("MNN", partial(_mnn, bundle, role, squares[0], Path(folder), threads)),
                "torch eager": ("torch", partial(_torch, net)),
                "torch compiled": ("torch", lambda n=net: _torch(torch.compile(n))),
            }
            limit = SAME[OUTPUT[role]]
            rows += _compared(role, sides, squares, threads, seconds, progress, limit)
    common = {
        "bundle_sha256": bundle.sha256[:16],
        "commit": commit(),
        "hardware": f"{machine()['cpu']}, {machine()['cores']} cores",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
    }
    return [{name: (row | common).get(name) for name in COLUMNS} for row in rows + pipelines]


def _networks(bundle: Bundle, runs: Sequence[str | Path]) -> dict[str, GraphModule]:
    """Role to the torch network that the bundle's graph was made from."""
    found: dict[str, GraphModule] = {}
    loaded = [load_run(Path(folder)) for folder in runs]
    for role, model in bundle.manifest.models.items():
        fitting = [run for run in loaded if run.model == model.architecture]
        if not fitting:
            raise UserError(f"--runs: none is of the {role}'s network, {model.architecture}")
        found[role] = GraphModule(load_model(fitting[0])).eval().requires_grad_(False)
    if "classifier" in found:
        found["classifier"].temperature = _temperature(bundle, found["classifier"])
    return found


def _tuned(bundle: Bundle, threads: int, seconds: float, progress) -> dict[str, ExecutionConfig]:
    """Role to the fastest road of at most so many threads."""
    fitting = [
        result
        for result in tune(bundle, seconds, progress=progress)
        if result.ms is not None and 0 < result.execution.threads <= threads
    ]
    return {
        role: min((r for r in fitting if r.role == role), key=lambda r: r.ms).execution
        for role in bundle.manifest.models
    }


def _temperature(bundle: Bundle, net: GraphModule) -> float:
    """That of the bundle's classifier, read back: both answers tell the logits up to a factor."""
    ours, theirs = (
        np.log(np.stack([answer(s) for s in _squares(bundle, "classifier")]).astype(np.float64))
        for answer in (_session(bundle, "classifier", 1, "cpu"), _torch(net))
    )
    ours, theirs = (v - v.mean(axis=1, keepdims=True) for v in (ours, theirs))
    return float((theirs * ours).sum() / (ours * ours).sum())


def _squares(bundle: Bundle, role: str) -> list[np.ndarray]:
    spec = bundle.manifest.models[role].preprocessing
    # Stacked, not given an axis by [None]: ExecuTorch refuses numpy's stride of 0.
    return np.split(
        np.stack([prepare(draw(k, size=(360, 480)).image, spec)[0] for k in range(PICTURES)]),
        PICTURES,
    )


def _compared(
    what: str,
    sides: Mapping[str, tuple],
    inputs: Sequence,
    threads: int,
    seconds: float,
    progress: Callable[[str], None],
    limit: Limit,
) -> list[dict]:
    """A row a side; the first one is ours, and the others' answers must be within `limit`, each
    number as well as their mean.

    `sides`: name to its package, what builds it and, where it has one of its own, its limit.
    """
    ready: dict[str, Answer] = {}
    rows: dict[str, dict] = {}
    wanted = None
    for name, (package, build, *own) in sides.items():
        progress(f"{what}: {name}")
        rows[name] = {"what": what, "side": name, "version": _version(package), "threads": threads}
        try:
            answer = build()
            found = np.stack([answer(one) for one in inputs])
        except ImportError as error:
            rows[name]["reason"] = f"not measured: {error.name or package} is not installed"
            continue
        except Exception as error:  # whatever a converter raises: the others are still measured
            first = " ".join(str(error).split())[:120]
            rows[name]["reason"] = f"not measured: {type(error).__name__}: {first}"
            continue
        wanted = found if wanted is None else wanted
        apart = np.abs(found - wanted) if found.shape == wanted.shape else np.array(np.inf)
        mean, largest = float(apart.mean()), float(apart.max())
        rows[name]["difference"] = f"{mean:.2g}"
        allowed = (own or [limit])[0]
        # Written so that NaN is refused.
        if not (mean <= allowed.mean and largest <= allowed.largest):
            rows[name]["reason"] = (
                f"not measured: its answers differ by {mean:.2g} on average, {largest:.2g} at most"
            )
            continue
        ready[name] = answer
    ours = next(iter(sides))
    if ours not in ready:
        raise SessionError(f"{what}: {rows[ours]['reason']}")
    ways = {
        name: lambda turn, answer=answer: answer(inputs[turn % len(inputs)])
        for name, answer in ready.items()
    }
    progress(f"{what}: in turns")
    paired_timing(ways, 0, (3, 3))
    taken = paired_timing(ways, seconds, ROUNDS)
    for name, times in taken.items():
        # `ratio` tells how much faster the second is: of a side, ours.
        found = ratio(times, taken[ours])
        rows[name] |= {
            "turns": len(times),
            "ms": round(float(np.median(times)), 3),
            "p90_ms": round(float(np.percentile(times, 90)), 3),
            "times_of_ours": found["ratio"],
            "times_of_ours_low": found["low"],
            "times_of_ours_high": found["high"],
        }
    return list(rows.values())


# ------------------------------------------------------------------------------ runtimes


def _session(bundle: Bundle, role: str, threads: int, provider: str) -> Answer:
    precision = bundle.manifest.models[role].precision
    session = open_session(bundle.model(role), threads, provider, bundle.sha256, precision)
    return lambda square: session.run({"image": square})[OUTPUT[role]].ravel()


def _road(bundle: Bundle, role: str, road: ExecutionConfig) -> Answer:
    variant = bundle.variant(role, road.precision, target(road.provider))
    return _session(bundle.sliced({role: variant}), role, road.threads, road.provider)


def _first(outputs) -> np.ndarray:
    first = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
    return np.asarray(first).ravel()


def _torch(net: nn.Module) -> Answer:
    def answer(square: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return _first(net(torch.from_numpy(square)))

    return answer


def _executorch(net: nn.Module, square: np.ndarray) -> Answer:
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
            layout = {"memory_format": torch.contiguous_format}
            with module.graph.inserting_after(node):
                copy = module.graph.call_function(torch.ops.aten.clone.default, (node,), layout)
                copy.meta["val"] = value.clone(**layout)
            node.replace_all_uses_with(copy, delete_user_cb=lambda user, c=copy: user is not c)
    module.recompile()


def _litert(net: nn.Module, square: np.ndarray, threads: int) -> Answer:
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "graph.tflite")
        litert_torch.convert(net, (torch.from_numpy(square),)).export(str(path))
        graph = path.read_bytes()
    interpreter = Interpreter(model_content=graph, num_threads=threads)
    interpreter.allocate_tensors()
    given, taken = interpreter.get_input_details()[0], interpreter.get_output_details()

    def answer(one: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], one)
        interpreter.invoke()
        return interpreter.get_tensor(taken[0]["index"]).ravel()

    return answer


def _ncnn(net: nn.Module, square: np.ndarray, folder: Path, threads: int) -> Answer:
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
            failed, found = extractor.extract("out0")
            if failed:
                raise SessionError("ncnn did not run this network")
            return np.array(found).ravel().copy()

    return answer


def _mnn(bundle: Bundle, role: str, square: np.ndarray, folder: Path, threads: int) -> Answer:
    import MNN

    # Its command `mnnconvert` installs a package and reports to its maker; what it wraps does not.
    convert = "import sys, _tools; sys.exit(not _tools.mnnconvert(sys.argv))"
    (folder / "net.onnx").write_bytes(bundle.model(role))
    told = ["-f", "ONNX", "--modelFile", "net.onnx", "--MNNModel", "net.mnn", "--bizCode", "none"]
    done = subprocess.run([sys.executable, "-c", convert, *told], cwd=folder, capture_output=True)
    if done.returncode:
        raise SessionError(f"its converter failed: {done.stderr.decode().strip()[-100:]}")
    plan = {"backend": "CPU", "numThread": threads, "precision": "high"}
    runtime = MNN.nn.create_runtime_manager((plan,))
    graph = MNN.nn.load_module_from_file(
        str(folder / "net.mnn"), ["image"], [OUTPUT[role]], runtime_manager=runtime
    )

    def answer(one: np.ndarray) -> np.ndarray:
        given = MNN.expr.placeholder(list(square.shape), MNN.expr.NCHW, MNN.expr.uint8)
        given.write(one)
        return np.array(graph.forward([given])[0].read()).ravel()

    return answer


# ------------------------------------------------------------------------------ whole pipelines


def _pipelines(bundle, nets, roads, threads, seconds, progress) -> list[dict]:
    """Picture to decision: ours with all that it measures, as it is and tuned, ours with no more
    than the other side does (both networks, the mask at the picture's size, the risk), and the
    other side."""
    frame = draw(3, "phone", size=(720, 1280)).image
    photo = cv2.resize(draw(4, "phone", size=(1512, 2016)).image, (4032, 3024))
    encoded = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    rows = []
    told = ", ".join(f"{role} {road}" for role, road in roads.items())
    whole, tuned = "dermedge, whole analysis", f"dermedge, whole analysis, tuned ({told})"
    for what, picture in ((FRAME, frame), (PHOTO, encoded)):
        shares: dict[str, list[float]] = {whole: [], tuned: []}
        sides = {
            whole: ("onnxruntime", lambda s=shares: _ours(bundle, threads, {}, s[whole])),
            tuned: ("dermedge", lambda s=shares: _ours(bundle, threads, roads, s[tuned])),
            "dermedge, both networks": ("onnxruntime", lambda: _same_work(bundle, threads)),
            "torch, torchvision, PIL": ("torch", lambda: _theirs(bundle, nets)),
        }
        found = _compared(what, sides, [picture], threads, seconds, progress, ALIKE)
        for row in found:
            if shares.get(row["side"]):
                row["outside_networks"] = round(float(np.median(shares[row["side"]])), 3)
        rows += found
    return rows


def _ours(
    bundle: Bundle, threads: int, roads: Mapping[str, ExecutionConfig], shares: list[float]
) -> Answer:
    """To `shares` goes what of each analysis was not spent in the networks."""
    analyzer = Analyzer(bundle, threads=threads, executions=roads)

    def answer(source) -> np.ndarray:
        picture = source if isinstance(source, bytes) else Picture(source, *source.shape[:2])
        found = analyzer.analyze(picture)
        spent = found.timing_ms
        shares.append(1 - (spent["segmenter"] + spent["classifier"]) / spent["total"])
        return np.array([found.malignancy, found.lesion.area_px / (found.height * found.width)])

    return answer


def _same_work(bundle: Bundle, threads: int) -> Answer:
    """The mask at the picture's size and the risk, without quality, outline and ABCD."""
    networks = Analyzer(bundle, threads=threads).networks()

    def answer(source) -> np.ndarray:
        pixels = read_image(source).pixels if isinstance(source, bytes) else source
        square, placement = prepare(pixels, networks["segmenter"].model.preprocessing)
        found = networks["segmenter"].run(square)["mask"]
        mask = placement.restore(found) >= bundle.manifest.thresholds.mask
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
        found = nets["segmenter"](square(image, sizes["segmenter"]))
        mask = found[0] if isinstance(found, (list, tuple)) else found
        side = max(image.size)
        whole = v2.functional.resize(mask[None], [side, side], antialias=False)
        mask = v2.functional.center_crop(whole, [image.height, image.width]) >= mask_at
        found = nets["classifier"](square(image, sizes["classifier"]))
        return np.array([_risk(bundle, found[0].numpy()), float(mask.float().mean())])

    return answer


def _risk(bundle: Bundle, probabilities: np.ndarray) -> float:
    malignant = [label in MALIGNANT for label in bundle.manifest.labels]
    return float(np.asarray(probabilities).ravel()[malignant].sum())


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def to_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """What `measure` gave, as a table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
