"""The pass over the validation part."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_masks import SIZE, drawn, masked_set

from dermedge.data import Split, load
from dermedge.image.preprocess import Preprocessing, prepare
from dermedge.image.read import read_image
from export import ExportError
from export.bundle.figures import measured
from export.thresholds.choose import choose_thresholds
from export.validation import validate as stage
from export.validation.prepared import Prediction, PreparedSample
from export.validation.validate import validate


def test_an_export_on_empty_masks_alone_is_refused(tmp_path, monkeypatch):
    """A segmenter that finds nothing in nothing has no Jaccard of 1."""

    def predict(model, spec, records, use, note):
        nothing = {"mask": np.zeros((32, 32), np.float32)}
        for record in records:
            square, placement = prepare(read_image(record.image).pixels, spec.preprocessing)
            sample = PreparedSample(record, square, placement, np.zeros(0, np.float32))
            yield use(Prediction(sample, nothing))

    monkeypatch.setattr(stage, "predict", lambda *words: list(predict(*words)))
    run = SimpleNamespace(
        kind="segmenter",
        data_set="csv",
        split_sha256="",
        preprocessing=Preprocessing(size=32),
        metadata=(),
        labels=(),
    )

    def figures_of(*masks):
        masked_set(tmp_path, *masks)
        data_set = load("csv", tmp_path)
        ids = tuple(record.id for record in data_set.records)
        network = SimpleNamespace(
            run=run,
            recipe=SimpleNamespace(modality=""),
            split=Split("csv", 0, {"train": (), "val": ids, "test": ()}),
            data_set=data_set,
            model=torch.nn.Identity(),
            roles=("segmenter",),
        )
        validation = validate(network)
        return measured(validation, None, choose_thresholds(validation, None))["segmenter"]

    empty = np.zeros(SIZE, np.uint8)
    with pytest.raises(ExportError, match="all 2 masks of the validation part of csv are empty"):
        figures_of(empty, empty)
    figures = figures_of(empty, drawn(0, 2))
    assert figures["jaccard"]["value"] == 0.0  # of the accepting half: the drawn one
