"""The command line: what a user sees when something is missing or wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from dermedge.cli import main
from dermedge.image import write_png


@pytest.fixture
def picture(tmp_path):
    from dermedge.procedural import draw

    path = tmp_path / "lesion.png"
    write_png(path, draw(1, label="nv").image)
    return path


def test_overview_lists_every_room(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("analyze", "app", "bench", "data", "demo", "evaluate", "export", "train"):
        assert f"\n  {name} " in text
    assert "not a diagnosis" in text


def test_unknown_command(capsys):
    assert main(["diagnose"]) == 2
    assert "no subcommand 'diagnose'" in capsys.readouterr().err


def test_missing_extra_is_told_in_one_line(capsys, monkeypatch):
    """A device without torch: its finder says no, as on a machine that lacks the package."""
    for module in list(sys.modules):
        if module.split(".")[0] in ("torch", "train"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    code = main(["train", "classifier", "--recipe", "classifier", "--data", "csv=x"])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert "pip install 'dermedge[train]'" in error


def test_missing_bundle_is_one_line(capsys, picture):
    assert main(["analyze", str(picture), "--bundle", "none.dermbundle"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "none.dermbundle" in error


def test_analyze_as_text_says_that_it_is_no_diagnosis(capsys, picture, tiny_bundle):
    assert main(["analyze", str(picture), "--bundle", str(tiny_bundle)]) == 0
    text = capsys.readouterr().out
    assert str(picture) in text
    assert "not a diagnosis" in text
    assert "generated pictures" in text


def test_a_reader_that_leaves_early_is_no_traceback(picture, tiny_bundle):
    command = [sys.executable, "-m", "dermedge.cli", "analyze", "--bundle", str(tiny_bundle)]
    shell = " ".join(command + [str(picture)] * 40) + " --json | head -n 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout)["image"] == str(picture)
    assert "Traceback" not in done.stderr


def test_device_never_loads_what_it_need_not(picture, tiny_bundle):
    """Start-up time and memory of a kiosk: no torch, no plotting, no window toolkit."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dermedge.cli", "analyze", str(picture)]
        + ["--bundle", str(tiny_bundle), "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert {"cv2", "numpy", "onnxruntime"} <= loaded
    assert not loaded & {"torch", "torchvision", "matplotlib", "kivy", "sklearn", "scipy", "PIL"}
    assert json.loads(done.stdout)["triage"]


def test_no_runtime_reports_to_its_maker(picture, tiny_bundle, tmp_path):
    """What ONNX Runtime's telemetry would send lies in the user's cache first."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run(
        [sys.executable, "-m", "dermedge.cli", "analyze", str(picture)]
        + ["--bundle", str(tiny_bundle), "--json"],
        env={**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")},
        capture_output=True,
        check=True,
        timeout=300,
    )
    assert list(home.rglob("*")) == []


def test_masks_of_equal_names_never_overwrite_each_other(capsys, tmp_path, tiny_bundle):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_png(tmp_path / folder / "x.png", np.full((64, 64, 3), 99, np.uint8))
    masks = tmp_path / "masks"
    code = main(
        ["analyze", str(tmp_path / "a"), str(tmp_path / "b"), "--bundle", str(tiny_bundle)]
        + ["--masks", str(masks)]
    )
    assert code == 2
    assert "called x" in capsys.readouterr().err
    assert not masks.exists()
