"""`kill -9` of sender and archive at random moments: nothing lost, twice, corrupt or made up."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path

from store.store_cases import PASSPHRASE, fill

from edge_app.referral.outbox import Outbox
from edge_app.store.store import Store
from sending.mail_cases import destination, queue
from sending.receivers import Orthanc, picture

EACH = 5  # pictures of a referral


class Process:
    """The sender; what it printed until it was killed."""

    def __init__(self, path: Path):
        self.path, self.printed, self.received = path, b"", 0
        self.start()

    def start(self) -> None:
        script = Path(__file__).with_name("send_loop.py")
        env = {**os.environ, "PYTHONPATH": str(script.parents[2])}
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(self.path)], stdout=subprocess.PIPE, env=env
        )

    def read(self, seconds: float) -> bool:
        """Whether it printed more within that time."""
        handle = self.process.stdout.fileno()
        if not select.select([handle], [], [], seconds)[0]:
            return False
        piece = os.read(handle, 65536)
        self.printed += piece
        return bool(piece)

    def kill(self) -> None:
        self.process.kill()
        self.printed += self.process.stdout.read()
        self.process.wait()
        self.process.stdout.close()
        # A line that is cut in two is none.
        self.printed = self.printed[: self.printed.rfind(b"\n") + 1]

    def done(self) -> bool:
        return self.printed.endswith(b"done\n")

    def uids(self) -> set[str]:
        lines = self.printed.decode().split("\n")
        return {line.split()[1] for line in lines if line.startswith("received ")}


def prove(folder: Path, kills: int, instances: int, seed: int = 1) -> dict[str, int]:
    """Half of the kills hit the sender, half the archive. Returns figures; AssertionError.

    At least `instances` pictures are sent, and as many again as the kills take.
    """
    chance = random.Random(seed)
    orthanc = Orthanc(folder / "orthanc", wait=60)
    path = folder / "cases"
    cases = Store.create(path, PASSPHRASE)
    to, found = destination(cases, orthanc.web()), fill(cases)
    cases.close()
    ids, wanted = [], {}

    def queue_more() -> None:
        cases = Store.open(path, PASSPHRASE)
        for _ in range(instances // EACH):
            ids.append(id := f"{len(ids):032x}")
            queue(cases, to, pictures=EACH, id=id, found=found)
            wanted.update((one.uid, one.data) for one in (picture(id, n) for n in range(EACH)))
        cases.close()

    def keep_sending() -> None:
        """More to send where all had arrived before the last kill."""
        if sender.process.poll() is not None:
            sender.kill()  # reads what it printed last
            assert sender.done(), "the sender ended by itself"
            queue_more()
            sender.start()

    queue_more()
    sender, counts = Process(path), {"sender": 0, "archive": 0}
    step = max(1, instances // kills)
    try:
        for kill in range(kills):
            target = len(sender.uids()) + chance.randint(1, max(1, 2 * step - 2))
            end = time.monotonic() + 120
            while len(sender.uids()) < target:
                sender.read(1.0)
                keep_sending()
                assert time.monotonic() < end, "nothing more arrives"
            select.select([], [], [], chance.uniform(0, 0.06))  # about what a parcel takes
            keep_sending()
            if kill % 2:
                orthanc.kill()
                counts["archive"] += 1
                orthanc.start()
            else:
                sender.kill()
                counts["sender"] += 1
                sender.start()
        end = time.monotonic() + 600
        while sender.process.poll() is None:
            sender.read(1.0)
            assert time.monotonic() < end, "nothing more arrives"
        sender.kill()
        assert sender.done(), "the sender ended by itself"
        held = orthanc.held()  # raises for one that is there twice
    finally:
        if sender.process.poll() is None:
            sender.process.kill()
        orthanc.close()
    assert set(held) == set(wanted), "lost"
    assert all(held[uid] == data for uid, data in wanted.items()), "corrupt"
    assert sender.uids() <= set(held), "reported as received, but absent"
    cases = Store.open(path, PASSPHRASE)
    cases.check()
    for id in ids:
        status = Outbox(cases).status(cases.mail.referral(id))
        assert status.state == "received"
        assert [p.sha256 for p in status.parcels] == [picture(id, n).sha256 for n in range(EACH)]
    cases.close()
    return {**counts, "instances": len(wanted)}
