"""A whole analysis, as `analysis.schema.json` describes it, for tests that need one to be kept."""

from __future__ import annotations


def analysis(size: tuple[int, int] = (640, 480), **changes) -> dict:
    """Of a picture of that size; `changes` replaces parts of it."""
    width, height = size
    box = [0.25 * width, 0.25 * height, 0.5 * width, 0.5 * height]
    x, y, across, down = box
    polygon = [[x, y], [x + across, y], [x + across, y + down], [x, y + down]]
    found = {
        "image": "capture",
        "size": [width, height],
        "quality": {"ok": True, "usable": True, "reasons": [], "scores": {"too_dark": 0.1}},
        "lesion": {
            "found": True,
            "box": box,
            "polygons": [polygon],
            "area_px": across * down,
            "centroid": [width / 2, height / 2],
        },
        "abcd": {
            "asymmetry": 1,
            "border": 2,
            "color": 3,
            "diameter_mm": None,
            "asymmetry_index": 0.1,
            "border_irregularity": 0.2,
            "colors": ["red", "light brown", "dark brown"],
            "axis": 0.5,
        },
        "scale": None,
        "probabilities": {"mel": 0.125, "nv": 0.875},
        "likely": "nv",
        "malignancy": 0.125,
        "familiarity": None,
        "similar": [],
        "triage": "low",
        "rule": "malignancy 0.125 is below 0.4",
        "timing_ms": dict.fromkeys(
            ("decode", "prepare", "segmenter", "classifier", "lesion", "quality", "total"), 1.0
        ),
        "versions": {
            "dermedge": "0.1.0",
            "opencv": "4.10.0",
            "runtime": "onnxruntime 1.19.0",
            "bundle": "tiny",
            "bundle_sha256": "0" * 64,
            "signed_by": None,
            "procedural": True,
            "models": {},
        },
        "disclaimer": "Risk estimate for research, not a diagnosis.",
    }
    return found | changes
