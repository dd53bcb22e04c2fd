"""ONNX Runtime's Java library, in a real JVM where `make jar` has fetched it: Android's session."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dermedge.runtime import SessionError, java, open_session

ROOT = Path(__file__).parents[1]


def _run(code: str, *words: object, **variables: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own: a JVM never leaves the one that it was started in."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


# --- with the library

CONTRACT = """
import json, signal, sys, threading
import numpy as np
from dermedge import tune
from dermedge.bundle.bundle import Bundle
from dermedge.runtime import SessionError, java, open_session
from dermedge.runtime.parity import SAME_GRAPH, mismatch

bundle = Bundle.open(sys.argv[1])
assert "java" in tune.providers()
handler = signal.getsignal(signal.SIGINT)
for role in ("segmenter", "classifier"):
    graph = bundle.model(role)
    ours, theirs = open_session(graph, 1, "java"), open_session(graph, 1)
    assert (ours.inputs, ours.outputs) == (theirs.inputs, theirs.outputs)
    assert ours.runtime == f"onnxruntime {java.version()} (Java) CPUExecutionProvider"
    rng = np.random.default_rng(0)
    answers = []
    for brightest in (60, 255):
        feeds = {
            item.name: rng.integers(0, brightest, item.shape).astype(item.dtype)
            for item in ours.inputs
        }
        answers.append((ours.run(feeds), theirs.run(feeds)))
    for mine, its in answers:  # the second run has not written over the first one's outputs
        assert not mismatch(its, mine, SAME_GRAPH["fp32"]), mismatch(its, mine, SAME_GRAPH["fp32"])
    assert mismatch(answers[0][0], answers[1][0], SAME_GRAPH["fp32"])
    beside = []
    other = threading.Thread(target=lambda: beside.append(ours.run(feeds)))
    other.start()
    other.join()
    for name, values in answers[-1][0].items():
        assert np.array_equal(beside[0][name], values)
assert signal.getsignal(signal.SIGINT) is handler
for call in (
    lambda: ours.run({"image": np.zeros((1, 5, 5, 3), np.uint8)}),
    lambda: open_session(b"no graph", 1, "java"),
):
    try:
        call()
    except SessionError as error:
        assert "\\n" not in str(error)
        print(error.code, error)
results = tune.tune(bundle, 0.01)
print(json.dumps([r.reason for r in results if r.execution.provider == "java"]))
"""


def test_it_keeps_the_contract(onnxruntime_jar, make_bundle, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    bundle = make_bundle(metadata=("age",))
    done = _run(CONTRACT, bundle, CLASSPATH=onnxruntime_jar, TMPDIR=str(temporary))
    assert done.returncode == 0, done.stdout + done.stderr
    failed, refused, tuned = done.stdout.splitlines()
    assert failed.startswith("session-failed ONNX Runtime's Java library failed: image must be")
    assert refused.startswith("model.load ONNX Runtime's Java library does not load the model")
    assert set(json.loads(tuned)) == {""}  # every way through it was timed
    assert list(temporary.iterdir()) == []


ANDROID = """
import sys
sys.getandroidapilevel = lambda: 34
sys.modules["onnxruntime"] = None
import importlib.util
found = importlib.util.find_spec
def find_spec(name, *rest):
    return None if name == "onnxruntime" else found(name, *rest)
importlib.util.find_spec = find_spec
import dermedge.runtime as runtime
from dermedge import tune
from dermedge.bundle.bundle import Bundle
bundle = Bundle.open(sys.argv[1])
print(runtime.open_session(bundle.model("classifier"), 1).runtime)
print(tune.providers(), tune.machine()["onnxruntime"])
"""


def test_android_without_a_package_runs_the_processor_through_it(
    onnxruntime_jar, tiny_bundle, tmp_path
):
    # What the jar unpacks on a desktop, and an app holds unpacked on a phone.
    variables = {"CLASSPATH": onnxruntime_jar, "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={tmp_path}"}
    done = _run(ANDROID, tiny_bundle, **variables)
    assert done.returncode == 0, done.stderr
    session, ways = done.stdout.splitlines()
    assert session.endswith("(Java) CPUExecutionProvider")
    assert ways.startswith(("['java'", "['openvino', 'java'"))
    assert ways.endswith("None")


# --- the app's own classes

PICTURE = """
import jnius_config
jnius_config.add_options("-Xrs", "-XX:-UsePerfData")
import numpy as np
from jnius import autoclass
from edge_app.capture.camera2 import Camera2Source
ByteBuffer, Picture = autoclass("java.nio.ByteBuffer"), autoclass("org.dermedge.Picture")

class Camera:
    fault = lambda self: ""
    def take(self):
        planes = [ByteBuffer.wrap(bytes([76] * 40)), ByteBuffer.wrap(bytes([85] * 8)),
                  ByteBuffer.wrap(bytes([255] * 8))]
        return Picture(8, 4, planes, [10, 4, 4], [1, 1, 1], 90)

frame = Camera2Source(Camera(), lambda: False).read()
print(frame.pixels.shape, np.unique(frame.pixels.reshape(-1, 3), axis=0).tolist())
"""


def test_a_picture_of_java_becomes_a_frame(tmp_path):
    pytest.importorskip("jnius_config")
    if not shutil.which("javac"):
        pytest.skip("javac is not installed (Debian package default-jdk-headless)")
    source = ROOT / "edge_app/android/java/src/main/java/org/dermedge/Picture.java"
    subprocess.run(["javac", "-d", tmp_path, source], check=True, timeout=300)
    done = _run(PICTURE, CLASSPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(8, 4, 3) [[254, 0, 0]]\n"  # red, and upright


@pytest.mark.slow
def test_the_camera_opens_and_says_what_is_wrong_under_robolectric(tmp_path):
    if not shutil.which("mvn"):
        pytest.skip("Maven is not installed (Debian package maven)")
    pom = ROOT / "edge_app/android/java/pom.xml"
    done = subprocess.run(
        ["mvn", "-q", "-B", "-f", pom, "test"], capture_output=True, text=True, timeout=900
    )
    if "Could not transfer artifact" in done.stdout or "Could not resolve" in done.stdout:
        pytest.skip("Maven Central cannot be reached")
    assert done.returncode == 0, done.stdout[-2000:]


# --- without it


def test_it_is_offered_only_where_pyjnius_and_a_jar_are(tmp_path, monkeypatch):
    empty, jar = tmp_path / "empty.jar", tmp_path / "onnxruntime.jar"
    for path, name in ((empty, "other"), (jar, "ai/onnxruntime/OrtEnvironment.class")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"")
    (tmp_path / "broken.jar").write_bytes(b"no archive")
    monkeypatch.setattr(java, "find_spec", lambda name: object())
    paths = [str(tmp_path / "missing.jar"), str(tmp_path / "broken.jar"), str(empty)]
    monkeypatch.setenv("CLASSPATH", os.pathsep.join(paths))
    assert java.library() is None
    monkeypatch.setenv("CLASSPATH", os.pathsep.join([*paths, str(jar)]))
    assert java.library() == "onnxruntime.jar"
    monkeypatch.setattr(java, "find_spec", lambda name: None)
    assert java.library() is None


def test_what_is_missing_is_one_line(monkeypatch):
    java._java.cache_clear()
    monkeypatch.setitem(sys.modules, "jnius", None)
    with pytest.raises(SessionError, match=r"pip install 'dermedge\[java\]'"):
        open_session(b"graph", 1, "java")


def test_a_jar_without_the_library_is_one_line(tmp_path):
    pytest.importorskip("jnius_config")
    code = """
from dermedge.runtime import SessionError, open_session
try:
    open_session(b"graph", 1, "java")
except SessionError as error:
    print(error.code, error)
"""
    done = _run(code, CLASSPATH=str(tmp_path / "missing.jar"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in ("java.library", "java.machine")
    assert len(done.stdout.splitlines()) == 1
