"""Segmenters against what each of several people drew."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dermedge import UserError, cli, data
from dermedge.data.synthetic import write_data_set
from dermedge.image.preprocess import Preprocessing
from dermedge.image.read import write_png
from train import outlines_ablation


class Halves(torch.nn.Module):
    """Takes the left share of each picture for the lesion."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        count, size = image.shape[:2]
        logits = torch.full((count, 1, size, size), -9.0)
        logits[..., : round(size * self.share)] = 9.0
        return logits


class Source:
    def __init__(self, path: str):
        self.net = Halves({"half": 0.5, "quarter": 0.25}[path])

    def network(self, _kind: str):
        return self.net, ()

    def preprocessing(self, _kind: str) -> Preprocessing:
        return Preprocessing(size=32)


def test_each_persons_outline_counts_and_runs_are_compared_with_the_first(tmp_path, monkeypatch):
    source, split, out = f"csv={tmp_path / 'data'}", tmp_path / "split.json", tmp_path / "out.json"
    write_data_set(tmp_path / "data", 40, size=(64, 64))
    assert cli.main(["data", "check", source, "--split", str(split)]) == 0
    words = ["--data", source, "--split", str(split), "--out", str(out), "--resamples", "20"]
    with pytest.raises(UserError, match="no picture of its validation part was outlined by sev"):
        outlines_ablation.main(["half", *words])
    drawn = []
    for share in (16, 32):
        drawn.append(tmp_path / f"{share}.png")
        write_png(drawn[-1], np.pad(np.full((64, share), 255, np.uint8), ((0, 0), (0, 64 - share))))
    found = data.load(*data.parse_source(source))
    records = tuple(
        replace(r, outlines=tuple(drawn), mask=r.mask if i % 2 else None)
        for i, r in enumerate(found.records)
    )
    monkeypatch.setattr(outlines_ablation.data, "load", lambda *_: replace(found, records=records))
    monkeypatch.setattr(outlines_ablation, "origin", Source)
    outlines_ablation.main(["half", "quarter", *words])
    said = json.loads(out.read_text())
    val = set(json.loads(split.read_text())["parts"]["val"])
    assert said["pictures"]["all"] == len(val)
    assert 0 < said["pictures"]["measured"] < len(val)
    # Each agrees wholly with one person, and by a half with the other.
    for run in ("half", "quarter"):
        assert said["runs"][run]["all"]["jaccard"]["value"] == pytest.approx(0.75)
        assert said["runs"][run]["all"]["minus the first"]["value"] == pytest.approx(0)
