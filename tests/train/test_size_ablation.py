"""The bundle's own size beside others, on its validation part."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from dermedge import UserError, cli
from dermedge.data.synthetic import write_data_set
from dermedge.image.preprocess import Preprocessing
from dermedge.taxonomy import CLASSES
from train import size_ablation
from train.models import build_model


def test_a_class_that_was_never_drawn_is_not_put_above_all_others():
    carried = size_ablation.log_prior({"nv": 0.8, "mel": 0.2, "scc": 0.0}, ("nv", "mel", "scc"))
    assert carried == pytest.approx([np.log(0.8), np.log(0.2), 0.0])
    assert (np.array([3.0, 1.0, -9.0]) - carried).argmax() == 0


def test_other_sizes_beside_the_bundles_own(tmp_path, monkeypatch):
    source, split, out = f"csv={tmp_path / 'data'}", tmp_path / "split.json", tmp_path / "out.json"
    write_data_set(tmp_path / "data", 60, size=(96, 128))
    assert cli.main(["data", "check", source, "--split", str(split)]) == 0
    model = build_model("mobilenet_v3_small", CLASSES).eval()
    network = SimpleNamespace(
        title="small",
        prior={},
        network=lambda _: (model, CLASSES),
        preprocessing=lambda _: Preprocessing(size=96),
    )
    monkeypatch.setattr(size_ablation, "origin", lambda _: network)
    monkeypatch.setattr(size_ablation, "_PASSES", 1)
    words = ["--bundle", "small", "--data", source, "--split", str(split), "--out", str(out)]
    size_ablation.main([*words, "--sizes", "32", "--resamples", "20"])
    found = json.loads(out.read_text())
    small, own = found["sizes"]["32"], found["sizes"]["96"]
    assert found["pictures"] == len(json.loads(split.read_text())["parts"]["val"])
    assert own["minus its own"]["malignant_auc"]["value"] == 0
    apart = small["malignant_auc"]["value"] - own["malignant_auc"]["value"]
    assert small["minus its own"]["malignant_auc"]["value"] == pytest.approx(apart)
    assert small["macs"] < own["macs"] / 3
    model.metadata = ("age",)
    with pytest.raises(UserError, match="without metadata"):
        size_ablation.main([*words, "--sizes", "32"])
