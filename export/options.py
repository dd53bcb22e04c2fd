"""What an export is asked for beside the runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dermedge.bundle.manifest import TARGETS
from export import METHODS

CALIBRATION_PICTURES = 500  # training pictures that INT8 is calibrated on, at least


@dataclass(frozen=True)
class ExportOptions:
    """See the comments of the fields."""

    prior: str = ""  # that the probabilities shall carry, as `export.runs.prior` reads it; "": own
    carried: str = ""  # that they carry so far, of a run that does not state it
    weights: str = "full"  # "half": rounded to half precision before all else, and stored so
    similar: int = 0  # labelled training cases of each class that the bundle carries, 0 to 8
    similar_pictures: bool = False  # whether small pictures of them travel too
    precisions: tuple[str, ...] = ("fp32",)  # of `dermedge.bundle.manifest.PRECISIONS`
    methods: tuple[str, ...] = METHODS  # of calibration, to be compared
    margins: Mapping[str, float] = field(default_factory=dict)  # instead of the recipe's
    retraining: int = 0  # steps of quantization-aware training where INT8 fails
    targets: tuple[str, ...] = TARGETS  # that other precisions than FP32 are made for

    @property
    def other_precisions(self) -> bool:
        """Whether any but FP32 is asked for."""
        return set(self.precisions) != {"fp32"}
