"""The fuzz target of the store's import, over its seeds and some changes of each."""

from __future__ import annotations

import json
import random

import pytest

pytest.importorskip("cryptography", reason="the store needs it")
from edge_app.store import derivation
from tests.fuzz import store_import

ROUNDS = 80
VALUES = (None, True, -1, 0, 1e999, 10**400, "", "\ud800", [], {}, [[]], "x" * 2000, [0] * 300)


@pytest.fixture(autouse=True)
def _bounded(monkeypatch):
    """A key that takes long would show as a test that takes long."""
    monkeypatch.setattr(derivation, "ARGON2", store_import.QUICK)
    monkeypatch.setattr(derivation, "MAX_WORK", 2**22)


@pytest.mark.parametrize("number", range(len(store_import.SEEDS)))
def test_seeds_are_taken_or_refused_in_one_line(number):
    store_import.one(store_import.SEEDS[number])


def test_changed_bytes_and_values_are_taken_or_refused_in_one_line():
    chance = random.Random(11)
    for _ in range(ROUNDS):
        seed = chance.choice(store_import.SEEDS)
        try:
            value = json.loads(seed[1:])
        except ValueError:
            data = bytearray(seed)
            for _change in range(chance.choice((1, 1, 4, 40))):
                data[chance.randrange(1, len(data))] = chance.randrange(256)
            store_import.one(bytes(data[: chance.choice((len(data), len(data), 5000))]))
            continue
        part, key = value, chance.choice([*_keys(value)])
        while isinstance(part[key], (dict, list)) and part[key] and chance.random() < 0.7:
            part = part[key]
            key = chance.choice([*_keys(part)])
        if chance.random() < 0.2:
            del part[key]
        else:
            part[key] = chance.choice(VALUES)
        store_import.one(seed[:1] + json.dumps(value).encode())


def _keys(part: dict | list):
    return part if isinstance(part, dict) else range(len(part))
