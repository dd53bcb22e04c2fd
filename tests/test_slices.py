"""The slices beside the shipped bundles: the same networks, for one kind of machine each."""

from __future__ import annotations

import pytest

from dermedge.bundle.bundle import SHIPPED, Bundle, open_bundle
from dermedge.bundle.reference import REFERENCE
from dermedge.verify import verify

SLICES = sorted((SHIPPED / "slices").glob("*.dermbundle"))
LARGEST = 6_000_000  # bytes


@pytest.mark.parametrize("path", SLICES, ids=lambda path: path.stem)
def test_a_slice_holds_what_was_accepted_for_its_machine(path):
    name, _, target = path.stem.rpartition("-")
    whole, part = open_bundle(name), Bundle.open(path)
    assert path.stat().st_size <= LARGEST
    assert part.manifest.models.keys() == whole.manifest.models.keys()
    for role, model in part.manifest.models.items():
        assert target in model.targets
        if model.precision != "fp32":
            accepted = [
                one
                for one in part.manifest.gate
                if one["passed"] and one["precision"] == model.precision
            ]
            assert any(role in one["roles"] and target in one["targets"] for one in accepted)
    for field in ("labels", "thresholds", "training_data", "licence"):
        assert getattr(part.manifest, field) == getattr(whole.manifest, field)
    # The answers that its graphs have to come near are those of the whole bundle's FP32.
    assert part.part(REFERENCE) == whole.part(REFERENCE)
    failed = [check for check in verify(part, target) if check.verdict == "fail"]
    assert not failed


def test_arm_and_tensorrt_have_a_slice():
    assert {path.stem.rpartition("-")[2] for path in SLICES} >= {"arm", "tensorrt"}
