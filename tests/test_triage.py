"""From a malignancy to the advice, and what comes before any malignancy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dermedge.bundle.manifest import Thresholds
from dermedge.lesion.quality import Quality
from dermedge.triage import decide, malignancy_of, triage_of

LIMITS = Thresholds(see_doctor=0.4, urgent=0.8, unfamiliar=1.5)
GOOD = Quality(True, (), {})


@pytest.mark.parametrize(
    ("malignancy", "advice", "limit"),
    [
        (0.0, "low", 0.4),
        (0.3999, "low", 0.4),
        (0.4, "see a doctor", 0.4),
        (0.7999, "see a doctor", 0.4),
        (0.8, "urgent", 0.8),
        (1.0, "urgent", 0.8),
    ],
)
def test_a_threshold_belongs_to_the_graver_advice(malignancy, advice, limit):
    triage, rule = triage_of(malignancy, LIMITS)
    assert (triage, rule.code, rule.values["limit"]) == (advice, advice, limit)


def test_what_cannot_be_judged_gets_no_estimate():
    poor = Quality(False, ("too_dark", "hair"), {}, refused=1)
    triage, rule = decide(poor, 0.99, 2.0, LIMITS)
    assert (triage, rule.code, rule.values["reasons"]) == ("retake", "quality", ("too_dark",))
    triage, rule = decide(GOOD, 0.99, 2.0, LIMITS)
    assert (triage, rule.code) == ("retake", "unfamiliar")
    # Advice alone refuses nothing.
    assert decide(replace(poor, refused=0), 0.99, None, LIMITS)[0] == "urgent"


def test_malignancy_is_the_sum_of_the_malignant_classes():
    labels = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc", "scc")
    stated = np.array([0.01, 0.02, 0.1, 0.1, 0.04, 0.6, 0.05, 0.08], np.float32)
    assert malignancy_of(stated, labels) == pytest.approx(0.15)
