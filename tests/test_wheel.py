"""What `pip wheel .` makes: all that a device needs, and nothing that only a desktop does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from dermedge.data.synthetic import draw
from dermedge.image.read import write_png

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ROOMS = ("dermedge", "edge_app", "benchmarks", "train", "export")
# Of every command: the user's own files lie in the working folder, called as our rooms are.
TRAP = "open('executed', 'w').close()\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = (
        "from setuptools import build_meta; import sys; print(build_meta.build_wheel(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", build, str(out)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def device(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel and the libraries of this one, but not its dermedge."""
    folder = tmp_path_factory.mktemp("device")
    venv.create(folder, with_pip=False, symlinks=os.name == "posix")
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)}, scheme="venv")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(paths["purelib"])
    bench = Path(paths["purelib"], "benchmarks", "latency", "bench.py")
    once = re.sub(r"(?m)^COLD_STARTS = \d+$", "COLD_STARTS = 1", bench.read_text())
    assert "\nCOLD_STARTS = 1\n" in once
    bench.write_text(once)  # each is a process
    # A line of a .pth file is a path alone: the .pth files within it are not read.
    libraries = sysconfig.get_paths()["purelib"]
    Path(paths["purelib"], "libraries.pth").write_text(libraries + "\n")
    return Path(paths["scripts"], "python")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Somebody's working folder, with files of their own and a picture."""
    for room in ("train", "export", "benchmarks"):
        (tmp_path / f"{room}.py").write_text(TRAP)
    write_png(tmp_path / "spot.png", draw(3, label="mel", size=(240, 320)).image)
    return tmp_path


def run(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.run(
        [str(python), "-m", "dermedge.cli", *words],
        cwd=folder,
        env={**environment, "HOME": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_only_what_a_device_needs(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    assert {name.split("/")[0] for name in names} == {
        "dermedge",
        "edge_app",
        "benchmarks",
        next(name for name in names if name.endswith("METADATA")).split("/")[0],
    }
    assert [name for name in names if name.endswith(".dermbundle")] == [
        "dermedge/models/dermoscopy.dermbundle"
    ]
    assert [name for name in names if name.startswith("benchmarks/results")] == []
    assert "dermedge/py.typed" in names
    assert wheel.stat().st_size < 9e6


def test_it_analyses_measures_and_checks_a_camera(device, folder):
    pytest.importorskip("kivy")
    pytest.importorskip("jinja2")
    done = run(device, folder, "analyze", "spot.png")
    assert done.returncode == 0, done.stderr
    assert re.match(r"spot\.png: (retake|low|see a doctor|urgent)", done.stdout)
    done = run(device, folder, "bench", "--runs", "2", "--image", "spot.png", "--out", "bench")
    assert done.returncode == 0, done.stderr
    assert (folder / "bench" / "bench.json").is_file()
    done = run(device, folder, "app", "--self-check", "--source", "spot.png")
    assert "Traceback" not in done.stderr
    assert "camera" in done.stdout
    assert not (folder / "executed").exists()


def test_what_only_a_checkout_has_is_said_so(device, folder):
    done = run(device, folder, "--help")
    assert done.returncode == 0, done.stderr
    for name in ("train", "peers"):
        assert re.search(rf"^  {name} +not part of this installation", done.stdout, re.MULTILINE)
    peers = ["peers", "--runs", "run", "--out", "peers.csv"]
    for words in (["train", "--help"], ["export", "--help"], ["demo"], peers):
        done = run(device, folder, *words)
        assert done.returncode == 2
        assert "runs in a checkout of dermedge" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (folder / "executed").exists()


def test_a_checkout_is_not_misled_by_the_users_files(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in ("train", "export"):
        done = subprocess.run(
            [sys.executable, "-m", "dermedge.cli", name, "--help"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert not (folder / "executed").exists()


JETPACK_CUDA = "cuda-bindings>=12.6.1,<13"
# Name: pip's tags of the platform, version of Python, and what the markers of requirements see.
PLATFORMS = {
    "windows": (
        ["win_amd64"],
        "3.11",
        {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
    ),
    "macos": (
        ["macosx_14_0_arm64", "macosx_13_0_arm64", "macosx_11_0_arm64"],
        "3.11",
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
    ),
    "jetpack6": (
        ["manylinux_2_35_aarch64", "manylinux_2_28_aarch64", "manylinux2014_aarch64"],
        "3.10",
        {"platform_machine": "aarch64"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("extra", [None, "app", "bench", "openvino", "java"])
@pytest.mark.parametrize("name", PLATFORMS)
def test_every_library_has_a_wheel(name, extra, tmp_path):
    """Asked of the package index that pip is set up with. Resolved, not run there."""
    from packaging.markers import default_environment
    from packaging.requirements import Requirement

    tags, version, differs = PLATFORMS[name]
    sees = {**default_environment(), "python_version": version, **differs, "extra": ""}
    wanted = {*PROJECT["dependencies"], *PROJECT["optional-dependencies"].get(extra, ())}
    asked: set[str] = set()
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("\n".join(pins(sees)))
    # pip reads the markers of this machine: what only the other one needs is asked for again.
    while wanted - asked:
        asked |= wanted
        for entry in resolved(sorted(asked), tags, version, constraints):
            for text in entry["metadata"].get("requires_dist", ()):
                need = Requirement(text)
                if need.marker and need.marker.evaluate(sees):
                    need.marker = None
                    wanted.add(str(need))


@pytest.mark.slow
def test_the_cuda_of_jetpack_6_has_a_wheel(tmp_path):
    """TensorRT itself comes with JetPack, as python3-libnvinfer; no package index has it."""
    tags, version, _ = PLATFORMS["jetpack6"]
    free = tmp_path / "constraints.txt"
    free.touch()  # the versions that are tested together are of CUDA 13
    names = {e["metadata"]["name"] for e in resolved([JETPACK_CUDA], tags, version, free)}
    assert "cuda-bindings" in names
    assert f"'{JETPACK_CUDA}'" in (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")


def pins(sees: dict[str, str]) -> list[str]:
    """The lines of constraints.txt that hold where markers see that."""
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    needs = [Requirement(line) for line in lines if line and not line.startswith("#")]
    held = [need for need in needs if need.marker is None or need.marker.evaluate(sees)]
    return [f"{need.name}{need.specifier}" for need in held]


def resolved(wanted: list[str], tags: list[str], version: str, constraints: Path) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        + [
            "--disable-pip-version-check",
            "--retries",
            "0",
            "--target",
            str(constraints.parent / "none"),
        ]
        + ["--only-binary", ":all:", "--python-version", version, "--report", "-"]
        + [word for tag in tags for word in ("--platform", tag)]
        + ["-c", str(constraints), *wanted],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "NewConnectionError" in done.stderr or "Name or service" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)["install"]
