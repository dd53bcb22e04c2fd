"""The fuzz target of tables over its seeds and seeded mutations of them."""

from __future__ import annotations

import random

import pytest

from dermedge.data import READERS, load
from tests.fuzz import tables as target

STRANGE = [
    *(b",", b";", b"\t", b'"', b"\n", b"\r", b"\0", b"\xff", b"\xc3", b",,", b'""', b"\n\n"),
    *(b"1e999", b"nan", b"-1", b"../../x", b"melanoma", b"nevus vs melanoma", b"image", b"{path}"),
    *(
        "\u2028".encode(),
        "Nävus".encode("latin-1"),
        b"=1+1",
        b"unknown",
        b"\x13",
        b"x" * 3000,
        b"\x13",
    ),
]


def test_every_reader_of_a_table_has_a_seed():
    without = {"folders", "med_node", "isic2018_task1", "procedural"}
    assert {tree[0] for tree, _ in target.TABLES} == READERS.keys() - without


@pytest.mark.parametrize("kind", range(len(target.SEEDS)))
def test_seeds_are_read_and_mutations_are_read_or_refused(kind):
    seed = target.SEEDS[kind]
    target.one(seed)
    reader = target.TABLES[kind][0][0]
    assert load(reader, target._root(reader)).records
    draw = random.Random(kind)
    for _ in range(60):
        data = bytearray(seed)
        for _ in range(draw.choice((1, 1, 2, 6))):
            where = draw.randrange(1, len(data) + 1)
            change = draw.randrange(4)
            if change == 0:
                data[where:where] = draw.choice(STRANGE)
            elif change == 1:
                data[where : where + 1] = bytes([draw.randrange(256)])
            elif change == 2:
                del data[where : where + draw.randrange(1, 20)]
            else:
                data[where:where] = data[1 : 1 + draw.randrange(1, 80)]
        target.one(bytes(data))
