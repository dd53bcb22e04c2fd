"""Fixtures of the store's tests."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="the store needs it")
from edge_app.store import clock, derivation
from edge_app.store.store import Store
from store.store_cases import PASSPHRASE, QUICK

# Where a disk need not be waited for: what a power cut leaves is not tested here.
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


@pytest.fixture
def at(monkeypatch):
    """Sets the clock of the device."""

    def at(now: str) -> None:
        monkeypatch.setattr(clock, "now", lambda: now)

    return at
