"""What the wrong statistics cost: the same pictures, fed with each."""

from __future__ import annotations

import json
import runpy
import sys

import numpy as np
import pytest
import torch

from dermedge import UserError
from dermedge.data.synthetic import write_data_set
from train import group_ablation, outlines_ablation, size_ablation, statistics_ablation
from train.models import IMAGENET, LITE, build_model


def test_a_backbone_is_fed_with_its_own_statistics_and_with_imagenets(tmp_path, monkeypatch):
    fed = []

    def pooled(records, model, preprocessing) -> np.ndarray:
        fed.append((model.mean.flatten().tolist(), model.std.flatten().tolist()))
        known = np.array([[float(record.malignant)] for record in records], np.float32)
        return known if len(fed) == 1 else np.zeros_like(known)

    monkeypatch.setattr(statistics_ablation, "pooled", pooled)
    out, weights, source = tmp_path / "out", tmp_path / "weights.pth", f"csv={tmp_path / 'data'}"
    write_data_set(tmp_path / "data", 30, size=(96, 128))
    torch.save(build_model("efficientnet_lite0", ("mel", "nv")).state_dict(), weights)
    words = ["--model", "efficientnet_lite0", "--weights", weights, "--data", source, "--out", out]
    statistics_ablation.main([*map(str, words), "--seeds", "1", "--resamples", "20"])
    for (mean, deviation), statistics in zip(fed, (LITE, IMAGENET), strict=True):
        assert mean == pytest.approx(statistics.mean)
        assert deviation == pytest.approx(statistics.std)
    found = json.loads(out.read_text())
    assert found["malignant_auc"]["its own"]["value"] == 1
    assert found["its own minus ImageNet's"]["value"] > 0.2
    torch.save({"a.weight": torch.zeros(1)}, weights)
    with pytest.raises(UserError, match=r"weights\.pth: these weights are of another network"):
        statistics_ablation.main([*map(str, words)])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (group_ablation, "--bundle x --data csv=x --features f"),
        (outlines_ablation, "x --data csv=x --split s"),
        (size_ablation, "--bundle x --data csv=x --split s --sizes 32"),
        (statistics_ablation, "--model mobilenet_v2 --weights w --data csv=x"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(script, words, tmp_path, monkeypatch, capsys):
    out = tmp_path / "none" / "out.json"
    monkeypatch.setattr(sys, "argv", [script.__file__, *words.split(), "--out", str(out)])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(script.__file__, run_name="__main__")
    assert end.value.code == 2
    assert capsys.readouterr().err == f"dermedge: {out.parent}: No such file or directory\n"


@pytest.mark.parametrize("option", ["--seeds", "--resamples"])
def test_counts_below_one_are_refused(option, capsys):
    words = ["--model", "mobilenet_v2", "--weights", "w", "--data", "csv=x", "--out", "o.json"]
    with pytest.raises(SystemExit) as end:
        statistics_ablation.main([*words, option, "0"])
    assert end.value.code == 2
    assert f"{option}: must be 1 or more, got 0" in capsys.readouterr().err
