"""How often intervals hold the truth, counted on drawn scores."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.accuracy import coverage, intervals
from dermedge.evaluation.metrics import roc_auc


def test_scores_are_drawn_with_the_auc_that_is_named():
    scores, malignant = coverage.drawn(0.93, (4000, 6000), np.random.default_rng(0))
    assert [roc_auc(one, malignant) for one in scores] == pytest.approx([0.93] * 2, abs=0.01)
    assert np.corrcoef(scores[:, malignant])[0, 1] == pytest.approx(coverage.ALIKE, abs=0.02)


def test_intervals_that_are_too_narrow_or_too_high_are_counted(monkeypatch):
    limits = iter([(0.8, 0.95), (0.91, 0.95), (0.8, 0.85), (None, None)])

    def given(*_):
        low, high = next(limits)
        return {"value": 0.9, "low": low, "high": high}

    monkeypatch.setattr(intervals, "interval", given)
    found = coverage.counted(0.9, (5, 5), draws=4)
    assert found["auc"] == {"intervals": 3, "held": [0.333, 0.061, 0.792], "above": 0.333}
    assert found["difference"]["intervals"] == 4


def test_the_command_writes_what_it_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(coverage, "AUCS", (0.85,))
    monkeypatch.setattr(coverage, "SIZES", ((5, 5),))
    coverage.main(["--draws", "1", "--out", str(tmp_path / "found.json")])
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert (row["true_auc"], row["malignant"], row["benign"]) == (0.85, 5, 5)
    assert "AUC 0.85, 5 malignant and 5 benign: held by" in capsys.readouterr().out
