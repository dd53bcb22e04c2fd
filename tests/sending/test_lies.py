"""HTTP 200 is no receipt: an archive that lies in fifteen ways is not believed once."""

from __future__ import annotations

import random

import pytest

from edge_app.referral.carriers import http
from sending.lies import CERTIFICATE, try_lie
from sending.receivers import LIES


@pytest.mark.parametrize("name", [*LIES, CERTIFICATE])
def test_no_false_receipt_and_a_line_that_says_what_to_do(cases, pems, monkeypatch, name):
    monkeypatch.setattr(http, "READ", 0.2)
    for seed in range(2):
        try_lie(cases, name, random.Random(f"{name} {seed}"), pems)
    cases.check()


def test_fifteen_behaviours_are_tried():
    assert len([*LIES, CERTIFICATE]) == 15
