"""Fixtures of the tests of sending."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

for module in ("cryptography", "pydicom", "requests"):
    pytest.importorskip(module, reason="sending needs it")
from store.store_cases import PASSPHRASE, QUICK  # noqa: E402

from edge_app.store import clock, derivation  # noqa: E402
from edge_app.store.store import Store  # noqa: E402
from sending.receivers import certificates  # noqa: E402

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@pytest.fixture
def tmp_path():
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _quick_keys(monkeypatch):
    monkeypatch.setattr(derivation, "ARGON2", QUICK)


@pytest.fixture
def cases(tmp_path):
    opened = Store.create(tmp_path / "cases", PASSPHRASE)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def pems(tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("pems"))


@pytest.fixture
def at(monkeypatch):
    """Sets the clock of the device."""

    def at(now: str) -> None:
        monkeypatch.setattr(clock, "now", lambda: now)

    return at
