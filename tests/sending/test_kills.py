"""Few kills here; `python tests/sending/proof.py kills` makes as many as one likes."""

from __future__ import annotations

import pytest

from sending import kills
from sending.receivers import Orthanc


def test_kills_of_sender_and_archive_lose_nothing(tmp_path):
    if missing := Orthanc.missing():
        pytest.skip(missing)
    found = kills.prove(tmp_path, kills=4, instances=20)
    assert (found["sender"], found["archive"]) == (2, 2)
