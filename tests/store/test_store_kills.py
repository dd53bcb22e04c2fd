"""`kill -9` loses nothing that was acknowledged."""

from __future__ import annotations

import hashlib
import os
import random
import select
import subprocess
import sys
from pathlib import Path

from edge_app.store.store import Lesion, Person, Store
from store.store_cases import (
    PASSPHRASE,
)

KILLS = int(os.environ.get("DERMEDGE_KILLS", "12"))


def test_no_acknowledged_capture_is_lost_or_corrupted_by_kill(tmp_path):
    """`kill -9` at random moments during saving; DERMEDGE_KILLS says how many (300 by hand)."""
    chance = random.Random(KILLS)
    path, there, total = tmp_path / "cases", {}, 0
    for kill in range(KILLS):
        if kill % 20 == 0:  # so that the file does not grow without end
            for file in tmp_path.glob("cases*"):
                file.unlink()
            cases = Store.create(path, PASSPHRASE)
            lesion = cases.add_lesion(Lesion("", cases.add_person(Person("", "Ada")).id, "arm"))
            cases.close()
            there = {}
        told = _saved_until_killed(path, lesion.id, chance)
        doubtful = None
        for line in told:
            word, *values = line.split()
            if word == "saved":
                there[values[0]] = values[1]
                total += 1
            elif word == "deleting":
                doubtful = values[0]
            elif word == "deleted":
                del there[values[0]]
                doubtful = None
        cases = Store.open(path, PASSPHRASE)
        cases.check()
        found = {capture.id for capture in cases.captures(lesion.id)}
        if doubtful not in found:
            there.pop(doubtful, None)
        assert set(there) <= found
        assert len(found - set(there)) <= 1  # the one that was being saved may be whole
        for id in found:
            digest = hashlib.sha256(cases.picture(id)).hexdigest()
            assert digest == there.setdefault(id, digest)
        cases.close()
    print(f"{KILLS} kills, {total} captures acknowledged, none lost, none corrupted")
    assert total >= KILLS // 2


def _saved_until_killed(path: Path, lesion: str, chance: random.Random) -> list[str]:
    """Let another process save; kill it at a random moment of a save. Returns what it told."""
    saver = Path(__file__).with_name("saver.py")
    command = [sys.executable, str(saver), str(path), lesion, str(chance.randrange(2**32))]
    root = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
    ) as process:
        told, wanted = b"", chance.randint(1, 6)
        while told.count(b"saving") < wanted:
            piece = os.read(process.stdout.fileno(), 65536)
            assert piece, "the saving process ended by itself"
            told += piece
        # A save takes about this long, so all of its moments are hit.
        select.select([], [], [], chance.uniform(0, 0.03))
        process.kill()
        told += process.stdout.read()
    return told.decode().split("\n")[:-1]  # an acknowledgement cut in two is none
