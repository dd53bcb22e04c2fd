"""Nothing leaves the device: every command, with all that it loads, asks for no network.

Each runs in a network namespace without a network, under strace, which sees the calls of native
code too, and in an empty home. The figures in docs/privacy.md come from here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from dermedge.runtime import ENGINES, JAVA
from dermedge.runtime.installed import providers

ROOT = Path(__file__).parents[1]
# io_uring would carry what strace does not see.
CALLS = "connect,sendto,sendmsg,sendmmsg,bind,io_uring_setup"
FAMILY = re.compile(r"sa_family=AF_(\w+)(.*)")
LOCAL = ("UNIX", "LOCAL", "NETLINK", "UNSPEC")


@dataclass(frozen=True)
class Record:
    """What one command did."""

    status: int
    output: str
    remote: list[str]  # calls that name an address which is not of this machine, or look one up
    home: list[str]  # what lies in its home afterwards, relative to it
    left: list[str]  # files in its folder for temporary ones


@pytest.fixture(scope="session")
def namespace() -> list[str]:
    """The words that run a command without a network and recorded, but for the record's file."""
    missing = [name for name in ("strace", "unshare") if not shutil.which(name)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed (Debian packages strace and util-linux)")
    trace = ["strace", "-f", "-qq", "-e", f"trace={CALLS}"]
    for unshare in (["unshare", "-n"], ["unshare", "-rn"]):
        for options in (["--seccomp-bpf"], []):  # much faster, from strace 5.3 on
            words = [*unshare, *trace, *options]
            done = subprocess.run([*words, "-o", os.devnull, "true"], capture_output=True)
            if done.returncode == 0:
                return words
    pytest.skip("no network namespace can be made here, or no process traced")


@pytest.fixture
def record(namespace, tmp_path):
    """Run a Python with these words, recorded; an empty home is its own."""

    def run(*words: object, display: str = "", name: str = "once", classpath: str = "") -> Record:
        home, temporary = tmp_path / f"home-{name}", tmp_path / f"temporary-{name}"
        home.mkdir()
        temporary.mkdir()
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            # OpenVINO's reporter keeps silent under CI: here it must not have that excuse.
        }
        if display:
            environment["DISPLAY"] = display
        if classpath:
            environment["CLASSPATH"] = classpath
        log = tmp_path / f"calls-{name}"
        done = subprocess.run(
            [*namespace, "-o", str(log), sys.executable, *map(str, words)],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        return Record(
            done.returncode,
            done.stdout[-2000:],
            [line for line in log.read_text(errors="replace").splitlines() if _remote(line)],
            sorted(str(path.relative_to(home)) for path in home.rglob("*")),
            sorted(path.name for path in temporary.rglob("*") if not path.is_dir()),
        )

    return run


def _remote(line: str) -> bool:
    if "io_uring_setup(" in line:
        return True
    return any(_is_remote(*found) for found in FAMILY.findall(line))


def _is_remote(family: str, rest: str) -> bool:
    if family in LOCAL:
        # A name server behind a socket of this machine.
        return "io.systemd.Resolve" in rest
    if family not in ("INET", "INET6"):
        return True
    address = re.search(r'(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"', rest)
    port = re.search(r"port=htons\((\d+)\)", rest)
    loopback = address and (address[1].startswith("127.") or address[1] == "::1")
    return not loopback or (port is not None and port[1] == "53")


def _named_in_docs() -> list[str]:
    """The folders in a home that docs/privacy.md owns up to."""
    page = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
    section = page.split("\n## What is written where\n")[1].split("\n## ")[0]
    return re.findall(r"`~/([^`\s]+)`", section)


MATPLOTLIB = (".cache/matplotlib", ".config/matplotlib")


def _quiet(record: Record, *named: str) -> None:
    """It worked, asked for no network, and left nothing but what is named, here and in the docs."""
    assert record.status == 0, record.output
    assert record.remote == []
    assert record.left == []
    assert set(named) <= set(_named_in_docs())
    for path in record.home:
        parts = Path(path).parts
        inside = [n for n in named if parts[: len(Path(n).parts)] == Path(n).parts]
        above = [n for n in named if Path(n).parts[: len(parts)] == parts]
        assert inside or above, f"{path} is in the home; docs/privacy.md does not say so"


# --- the recorder sees


@pytest.mark.parametrize(
    "code",
    [
        "import socket; s = socket.socket(); s.settimeout(1); s.connect(('192.0.2.1', 443))",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
        "import socket; socket.socket(socket.AF_INET6).connect(('2001:db8::1', 443))",
        "import socket; socket.getaddrinfo('telemetry.example.org', 443)",
        "import urllib.request; urllib.request.urlopen('http://telemetry.example.org/')",
        "import socket; socket.socket().bind(('0.0.0.0', 0))",
        "import subprocess, sys; subprocess.run([sys.executable, '-c', "
        "'import socket; socket.socket().connect((\"192.0.2.1\", 443))'])",
    ],
    ids=["tcp", "udp", "ipv6", "look-up", "http", "listens", "child"],
)
def test_whoever_asks_for_the_network_is_seen(record, code):
    assert record("-c", code).remote


def test_what_stays_on_the_machine_is_no_fault(record):
    code = "import socket; a, b = socket.socketpair(); a.send(b'x'); s = socket.socket()\n"
    seen = record("-c", code + "s.connect_ex(('127.0.0.1', 9))")
    assert (seen.status, seen.remote, seen.home) == (0, [], [])


def test_openvino_reports_where_dermedge_is_not_there_first(record):
    """What is shut off: a lasting number in the home, and a report to an analytics service."""
    pytest.importorskip("openvino")
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution("openvino-telemetry")
    except PackageNotFoundError:
        pytest.skip("this OpenVINO has no telemetry")
    seen = record("-c", "import openvino")
    assert seen.remote
    assert any("intel" in path for path in seen.home)
    silent = record("-c", "import dermedge, openvino; openvino.Core()", name="silent")
    _quiet(silent)


# --- every dependency of every extra, as far as it is installed

# The top modules of what pyproject.toml names; whoever adds a dependency adds it here.
DEPENDENCIES = {
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "pillow": "PIL.Image",
    "simplejpeg": "simplejpeg",
    "onnxruntime": "onnxruntime",
    "tqdm": "tqdm",
    "torch": "torch",
    "torchvision": "torchvision.transforms.v2",
    "accelerate": "accelerate",
    "segmentation-models-pytorch": "segmentation_models_pytorch",
    "tensorboard": "torch.utils.tensorboard",
    "tomli": "tomli",
    "sphinx": "sphinx.application",
    "furo": "furo",
    "myst-parser": "myst_parser.parsers.sphinx_",
    "onnx": "onnx",
    "onnxscript": "onnxscript",
    "onnxslim": "onnxslim",
    "torchao": "torchao.quantization",
    "jinja2": "jinja2",
    "jsonschema": "jsonschema",
    "matplotlib": "matplotlib.figure",
    "psutil": "psutil",
    "scikit-learn": "sklearn.metrics",
    "kivy": "kivy.app",
    "cryptography": "cryptography.hazmat.primitives.ciphers.aead",
    "fpdf2": "fpdf",
    "uharfbuzz": "uharfbuzz",
    "babel": "babel",
    "python-bidi": "bidi",
    "arabic-reshaper": "arabic_reshaper",
    "executorch": "executorch.exir",
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "litert-torch": "litert_torch",
    "MNN": "MNN",
    "ncnn": "ncnn",
    "pnnx": "pnnx",
    "mlcommons-loadgen": "mlperf_loadgen",
    "ray": "ray.data",
    "atheris": "atheris",
    "pillow-heif": "pillow_heif",
    "pydicom": "pydicom",
    "pyjpegls": "jpeg_ls",
    "highdicom": "highdicom",
    "requests": "requests",
    "pynetdicom": "pynetdicom",
    "openvino": "openvino",
    "buildozer": "buildozer",
    "python-for-android": "pythonforandroid",
    "pyjnius": "jnius_config",  # jnius itself starts a JVM
    "tensorrt": "tensorrt",
    "cuda-bindings": "cuda.bindings.runtime",
    "tensorrt-rtx-cu13-libs": "tensorrt_rtx_libs",
    "tensorrt-rtx-cu13-bindings": "tensorrt_rtx_bindings",
}
IMPORT = """
import gc, os, sys
gc.disable()  # all of it stays
import dermedge
from importlib import import_module
os.environ.update(KIVY_HOME=os.environ["TMPDIR"] + "/kivy", KIVY_NO_ARGS="1", KIVY_NO_FILELOG="1")
for name in sys.argv[1:]:
    try:
        import_module(name)
    except (ImportError, OSError) as error:  # not installed, or without the machine that it needs
        print(name, error)
import shutil
shutil.rmtree(os.environ["KIVY_HOME"], ignore_errors=True)
"""


def test_every_dependency_is_on_the_list():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {k: v for k, v in project["optional-dependencies"].items() if k != "dev"}
    wanted = [*project["dependencies"], *(word for words in extras.values() for word in words)]
    names = {re.match(r"[\w.-]+", word)[0] for word in wanted} - {"dermedge"}
    assert names - set(DEPENDENCIES) == set()
    page = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


def test_importing_every_dependency_asks_for_nothing(record):
    seen = record("-c", IMPORT, *DEPENDENCIES.values())
    _quiet(seen, *MATPLOTLIB)


# --- every command

PASSPHRASE = "for the test alone"
RESULT = next((ROOT / "benchmarks" / "results" / "devices").glob("*.json"))


@pytest.fixture
def dermedge(record):
    def run(*words: object, **options) -> Record:
        return record("-m", "dermedge.cli", *words, **options)

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    from dermedge.data.synthetic import write_data_set

    root = tmp_path_factory.mktemp("data")
    write_data_set(root, 120, size=(96, 128))  # enough that each half has a malignant lesion
    return root


@pytest.fixture(scope="session")
def picture(data) -> Path:
    return min((data / "images").iterdir())


@pytest.fixture(scope="session")
def split(data, tmp_path_factory) -> Path:
    from dermedge import cli

    path = tmp_path_factory.mktemp("split") / "split.json"
    assert cli.main(["data", "check", f"csv={data}", "--split", str(path)]) == 0
    return path


# Java's library is in no package; it has a test of its own.
HERE = [name for name in providers() if name not in (*ENGINES, JAVA)]


@pytest.mark.parametrize("provider", HERE)
def test_analyze(dermedge, tiny_bundle, picture, provider):
    options = ["--bundle", tiny_bundle, "--provider", provider, "--explain", "why", "--json"]
    _quiet(dermedge("analyze", picture, *options))


def test_analyze_by_javas_library(dermedge, tiny_bundle, picture, onnxruntime_jar):
    options = ["--bundle", tiny_bundle, "--provider", "java", "--json"]
    _quiet(dermedge("analyze", picture, *options, classpath=onnxruntime_jar))


def test_tune_and_what_it_chose(dermedge, tiny_bundle, picture):
    seen = dermedge("tune", "--bundle", tiny_bundle, "--seconds", 0.01)
    _quiet(seen, ".cache/dermedge")
    assert any("tuned" in path for path in seen.home)


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "--bundle", "{bundle}"],
        ["data", "check", "csv={data}", "--split", "frozen.json"],
        ["engine", "list"],
        ["card", "--out", "card.pdf"],
        ["app", "--self-check", "--bundle", "{bundle}", "--source", "{data}/images"],
        ["app", "--systemd", "--bundle", "dermoscopy"],
        ["send", "--systemd"],
        ["send", "list", "--home", "{home}", "--passphrase-file", "{home}/secret"],
        ["label", "people", "--home", "{home}", "--passphrase-file", "{home}/secret"],
        ["bench", "validate", "{result}"],
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_short_commands(dermedge, tiny_bundle, data, tmp_path, words):
    if words[0] in ("card", "app", "send", "label"):
        pytest.importorskip("fpdf")
        pytest.importorskip("cryptography")
    if words[0] == "bench":
        pytest.importorskip("jinja2")
    home = tmp_path / "cases"
    if "{home}" in words:
        from edge_app.store.store import Store

        home.mkdir()
        Store.create(home / "cases.db", PASSPHRASE).close()
        (home / "secret").write_text(PASSPHRASE)
    values = {"bundle": tiny_bundle, "data": data, "home": home, "result": RESULT}
    _quiet(dermedge(*(word.format(**values) for word in words)), ".local/share/dermedge")


def test_every_command_is_recorded_or_named_as_not():
    source = Path(__file__).read_text(encoding="utf-8")
    page = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8").split("\n## ")[0]
    for entry in entry_points(group="dermedge.commands"):
        if entry.load().renamed is None:
            assert f'"{entry.name}"' in source or f"`dermedge {entry.name}`" in page, entry.name


@pytest.mark.parametrize(
    ("name", "content"),
    [
        # FFmpeg tries for half a minute, and may not.
        pytest.param(
            "film.m3u8",
            "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://192.0.2.1/a.ts\n",
            marks=pytest.mark.slow,
        ),
        ("film.avi", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://192.0.2.1/a.ts\n"),
        ("film.mp4", "ffconcat version 1.0\nfile http://192.0.2.1/a.mp4\n"),
        (
            "film.mov",
            "v=0\no=- 0 0 IN IP4 192.0.2.1\ns=x\nc=IN IP4 192.0.2.1\nt=0 0\n"
            "m=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        ),
    ],
    ids=["list", "list-as-avi", "concatenation", "session"],
)
def test_a_film_cannot_make_the_app_ask_an_address(dermedge, tiny_bundle, tmp_path, name, content):
    pytest.importorskip("cryptography")
    (tmp_path / name).write_text(content)
    seen = dermedge("app", "--self-check", "--bundle", tiny_bundle, "--source", tmp_path / name)
    assert "camera   FAULT" in seen.output
    assert seen.remote == []


@pytest.mark.slow
def test_train_then_export(dermedge, data, split):
    pytest.importorskip("torch")
    tiny = ["pretrained=no", "epochs=1", "preprocessing.size=64", "batch_size=8", "workers=0"]
    chosen = [word for setting in tiny for word in ("--set", setting)]
    source = ["--data", f"csv={data}", "--split", split]
    words = ["train", "multitask", "--recipe", "multitask", *chosen, *source, "--out", "run"]
    _quiet(dermedge(*words, name="train"))
    _quiet(dermedge("export", "run", "--out", "made.dermbundle", name="export"))
    words = ["throughput", "--recipe", "classifier", *chosen, "--data", f"csv={data}"]
    _quiet(dermedge(*words, "--seconds", "0.1", "--limit", "16", name="throughput"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "--baselines"],
        ["bench", "--runs", "2", "--image", "{picture}", "--out", "bench"],
        ["quality", "--out", "quality"],
        ["robustness", "--out", "robustness"],
    ],
    ids=lambda words: words[0],
)
def test_what_measures(dermedge, tiny_bundle, data, split, picture, words):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    filled = [word.format(picture=picture) for word in words]
    source = (
        []
        if words[0] == "bench"
        else ["--data", f"csv={data}", "--split", "test", "--split-file", split]
    )
    seen = dermedge(*filled, "--bundle", tiny_bundle, *source)
    _quiet(seen, *MATPLOTLIB)


@pytest.mark.slow
def test_the_app_with_a_window(dermedge, tiny_bundle, picture, display):
    """One capture through all screens, kept in an encrypted store."""
    pytest.importorskip("kivy")
    options = ["--source", picture, "--soak", 1, "--size", "800x600"]
    _quiet(dermedge("app", "--bundle", tiny_bundle, *options, display=display))
