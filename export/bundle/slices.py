"""A bundle with one graph a network, for one kind of processor."""

from __future__ import annotations

from dataclasses import asdict, replace

from dermedge.bundle.manifest import Manifest


def slice_for(
    manifest: Manifest, parts: dict[str, bytes], target: str
) -> tuple[Manifest, dict[str, bytes]]:
    """The contents of a bundle with one graph a network: the best that passed for `target`.

    INT8 before FP16 before FP32; the acceptance let in what is as good, so the smaller is better.
    """
    models = {}
    for role, model in manifest.models.items():
        variants = (model.variant(precision, target) for precision in ("int8", "fp16", "fp32"))
        best = next(variant for variant in variants if variant)
        models[role] = replace(model, **asdict(best), variants=())
    every = manifest.models.values()
    graphs = {part for m in every for part in (m.part, *(v.part for v in m.variants))}
    retained = {model.part for model in models.values()}
    parts = {name: value for name, value in parts.items() if name not in graphs - retained}
    return replace(manifest, models=models), parts
