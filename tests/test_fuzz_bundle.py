"""The fuzz target of bundles over its seeds and seeded mutations of them."""

from __future__ import annotations

import copy
import json
import random

import pytest

from tests.fuzz import bundle as target

PLAIN = json.loads(target.SEEDS[target.IN_MANIFEST][1:])
STRANGE = [None, True, -1, 0, 1e308, 10**40, "", "x" * 5000, "\x1b[2J", [], {}, [[]], "fp32", 0.5]


def test_the_seeds_are_read():
    for kind, seed in enumerate(target.SEEDS):
        target.one(seed)
        # The signature is of no key.
        assert (target.opened(seed) is None) == (kind == target.IN_SIGNATURE)


@pytest.mark.parametrize("kind", range(len(target.SEEDS)))
def test_mutated_bytes_are_refused_or_read(kind):
    draw = random.Random(kind)
    for _ in range(120):
        data = bytearray(target.SEEDS[kind])
        for _ in range(draw.choice((1, 1, 2, 8))):
            where = draw.randrange(1, len(data))
            change = draw.randrange(4)
            if change == 0:
                data[where] ^= 1 << draw.randrange(8)
            elif change == 1:
                data[where] = draw.choice((0, 1, 127, 128, 255))
            elif change == 2:
                del data[where : where + draw.randrange(1, 9)]
            else:
                data[where:where] = data[where : where + draw.randrange(1, 9)]
            if len(data) < 2:
                break
        target.one(bytes(data))


def _paths(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(item, (*path, key))


def test_every_entry_of_a_manifest_may_be_anything():
    """With its checksum put right, so that the entry itself is what is read."""
    draw = random.Random(7)
    for path in list(_paths(PLAIN))[1:]:
        for strange in draw.sample(STRANGE, 4):
            content = copy.deepcopy(PLAIN)
            place = content
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = strange
            target.one(bytes([target.IN_MANIFEST]) + json.dumps(content).encode())


def test_entries_may_be_missing_or_unknown():
    for path in list(_paths(PLAIN))[1:]:
        content = copy.deepcopy(PLAIN)
        place = content
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        target.one(bytes([target.IN_MANIFEST]) + json.dumps(content).encode())
        if isinstance(place, dict):
            place["more"] = 1
            target.one(bytes([target.IN_MANIFEST]) + json.dumps(content).encode())
