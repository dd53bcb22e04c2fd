"""A bundle with one graph a network, for one kind of processor."""

from __future__ import annotations

from dataclasses import asdict, replace

from dermedge.bundle.manifest import Manifest, Model


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
    return _with_models(manifest, parts, models)


def beside_first(
    manifest: Manifest, parts: dict[str, bytes], target: str
) -> tuple[Manifest, dict[str, bytes]]:
    """The contents of a bundle without what is for other targets alone; FP32 stays."""
    models = {
        role: replace(model, variants=tuple(v for v in model.variants if target in v.targets))
        for role, model in manifest.models.items()
    }
    return _with_models(manifest, parts, models)


def _with_models(
    manifest: Manifest, parts: dict[str, bytes], models: dict[str, Model]
) -> tuple[Manifest, dict[str, bytes]]:
    dropped = _graphs(manifest.models) - _graphs(models)
    parts = {name: value for name, value in parts.items() if name not in dropped}
    return replace(manifest, models=models), parts


def _graphs(models: dict[str, Model]) -> set[str]:
    every = models.values()
    return {part for m in every for part in (m.part, *(v.part for v in m.variants))}
