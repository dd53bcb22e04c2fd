"""The fuzz target of pictures over its seeds and some hundred changes of them."""

from __future__ import annotations

import random

import pytest
from fuzz.image import SEEDS, one

from dermedge.image.read import read_image

# Lengths, counts and offsets that break readers.
WORDS = [
    bytes(4),
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    b"\0\0\0\1",
    b"\1\0\0\0",
    b"\xff\xd9",
    b"\xff\xda",
]


def changed(seed: bytes, rng: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        # Most faults that matter are in the header.
        last = len(data) if rng.random() < 0.5 else min(len(data), 100)
        at = rng.randrange(max(1, last))
        act = rng.randrange(4)
        if act == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif act == 1:
            word = rng.choice(WORDS)
            data[at : at + len(word)] = word
        elif act == 2:
            del data[at : at + rng.randint(1, 40)]
        else:
            data[at:at] = data[at : at + rng.randint(1, 40)]
    return bytes(data)


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_every_seed_is_good(number):
    read_image(SEEDS[number])


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_changed_seeds(number, capfd):
    rng = random.Random(number)
    for _ in range(40):
        one(changed(SEEDS[number], rng))
    assert capfd.readouterr() == ("", "")
