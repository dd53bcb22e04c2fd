"""The bundle's own size beside others, on its validation part."""

from __future__ import annotations

import json

import pytest

from dermedge import UserError, cli
from dermedge.data.synthetic import write_data_set
from train import size_ablation


def test_other_sizes_beside_the_bundles_own(tmp_path):
    source, split, out = f"csv={tmp_path / 'data'}", tmp_path / "split.json", tmp_path / "out.json"
    write_data_set(tmp_path / "data", 60, size=(96, 128))
    assert cli.main(["data", "check", source, "--split", str(split)]) == 0
    words = ["--bundle", "dermoscopy", "--data", source, "--split", str(split), "--out", str(out)]
    size_ablation.main([*words, "--sizes", "64", "--resamples", "20"])
    found = json.loads(out.read_text())
    small, own = found["sizes"]["64"], found["sizes"]["224"]
    assert found["pictures"] == len(json.loads(split.read_text())["parts"]["val"])
    assert own["minus its own"]["malignant_auc"]["value"] == 0
    apart = small["malignant_auc"]["value"] - own["malignant_auc"]["value"]
    assert small["minus its own"]["malignant_auc"]["value"] == pytest.approx(apart)
    assert small["macs"] < own["macs"] / 10
    with pytest.raises(UserError, match="without metadata"):
        size_ablation.main(["--bundle", "smartphone", *words[2:], "--sizes", "64"])
