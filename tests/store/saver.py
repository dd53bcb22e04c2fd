"""A process that saves and deletes captures until it is killed, and tells what was acknowledged."""

from __future__ import annotations

import hashlib
import os
import random
import sys
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))
from analyses import analysis

from edge_app.store.store import Capture, Store


def save_for_ever(path: str, lesion: str, seed: str) -> None:
    chance = random.Random(int(seed))

    def tell(*words: str) -> None:
        os.write(1, (" ".join(words) + "\n").encode())

    cases = Store.open(Path(path), "correct horse")
    saved = []
    while True:
        picture = chance.randbytes(chance.randint(1000, 600_000))
        tell("saving")
        capture = cases.add_capture(Capture("", lesion, "", analysis((9, 9)), (9, 9)), picture)
        tell("saved", capture.id, hashlib.sha256(picture).hexdigest())
        saved.append(capture)
        if chance.random() < 0.3:
            cases.update_capture(replace(saved[-1], notes="n" * chance.randint(0, 3000)))
        if chance.random() < 0.4:
            doomed = saved.pop(chance.randrange(len(saved))).id
            tell("deleting", doomed)
            cases.delete_capture(doomed)
            tell("deleted", doomed)


if __name__ == "__main__":
    save_for_ever(*sys.argv[1:])
