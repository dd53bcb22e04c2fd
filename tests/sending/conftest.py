"""Fixtures of the tests of sending: those of the store, and certificates."""

from __future__ import annotations

import pytest

for module in ("cryptography", "pydicom", "requests"):
    pytest.importorskip(module, reason="sending needs it")
from store.conftest import _quick_keys, at, cases, tmp_path  # noqa: E402, F401

from sending.receivers import certificates  # noqa: E402


@pytest.fixture(scope="session")
def pems(tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("pems"))
