"""Shutter to result with and without the sender at work, in turns, on this computer.

    xvfb-run -a python tests/sending/shutter.py --pictures 120

The app takes pictures of a drawn lesion; in between the sender is stopped and started, in turns.
It sends a queue to a DICOMweb server in a process of its own, which is read back. Prints the
medians and their ratio with a bootstrap interval over groups of four neighbours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

SIDE, OF_ONE, WAITING = 800, 3, 12  # px; pictures of a referral; referrals that wait at least


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.receive:
        return _receive()
    receiver = subprocess.Popen(
        [sys.executable, __file__, "--receive"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert receiver.stdout is not None
        waits, sent = _measure(receiver.stdout.readline().strip(), args.pictures)
    finally:
        receiver.kill()
        receiver.wait()
    print(json.dumps(_report(np.array(waits), sent)))
    return 0


def _report(waits: np.ndarray, sent: int) -> dict:
    """`waits` : ms; of every two neighbours one was taken while the sender was at work."""
    pairs = waits[: len(waits) // 4 * 4].reshape(-1, 4)  # without, with, with, without
    without, sending = pairs[:, [0, 3]], pairs[:, [1, 2]]
    random = np.random.default_rng(0)
    drawn = random.integers(len(pairs), size=(10_000, len(pairs)))
    ratios = np.median(sending[drawn], axis=(1, 2)) / np.median(without[drawn], axis=(1, 2))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return {
        "pictures": pairs.size,
        "without_ms": round(float(np.median(without)), 1),
        "with_ms": round(float(np.median(sending)), 1),
        "ratio": round(float(np.median(sending) / np.median(without)), 3),
        "interval_95": [round(float(low), 3), round(float(high), 3)],
        "parcels_sent": sent,
        "load": [round(one, 1) for one in os.getloadavg()],
        "cores": len(os.sched_getaffinity(0)),
    }


def _receive() -> int:
    """A DICOMweb server; its first line says where."""
    from sending.receivers import DicomWebReceiver

    print(DicomWebReceiver().endpoint().address, flush=True)
    while True:
        time.sleep(60)


def _measure(address: str, pictures: int) -> tuple[list[float], int]:
    """ms from shutter to result of each picture, and how many parcels were received meanwhile."""
    from dermedge.cli import main as dermedge
    from edge_app import commands

    waits: list[float] = []
    sent: list[int] = []

    def driver(_args, app):
        from edge_app.qa.measure import Meter  # Kivy is configured only now

        class Sending(Meter):
            def _walk(self):
                queue = _queue(app.session, address)
                next(queue)
                switch = _switch(app.session, queue)
                begin = app.session.begin

                def beginning(*args):
                    next(switch)
                    begin(*args)

                app.session.begin = beginning
                yield from super()._walk()
                waits.extend(self._waits)
                sent.append(_received(app.session.opened()))

        return Sending(app, 3, pictures)

    commands._driver = driver
    if status := dermedge(["app", "--measure", "3"]):
        raise SystemExit(status)
    return waits, sent[0]


def _received(store) -> int:
    parcels = [it for one in store.mail.referrals() for it in store.mail.parcels(one.id)]
    return sum(one.state == "received" for one in parcels)


def _queue(session, address: str):
    """Of a new store: queues what is missing until so many referrals wait."""
    from store.store_cases import fill

    from edge_app.store.referrals import Destination, Endpoint
    from sending.mail_cases import queue

    session.create("for the test alone")
    session.sender.stop()
    store, door = session.opened(), Endpoint("dicomweb", address)
    to, found = store.mail.add_destination(Destination("", "Clinic", door)), fill(store)
    number = 0
    while True:
        for _ in range(WAITING - len(store.mail.waiting())):
            queue(store, to, OF_ONE, id=f"{number:032x}", side=SIDE, found=found)
            number += 1
        yield


def _switch(session, queue):
    """Before each picture: off, on, on, off."""
    from edge_app.referral.background import SenderThread

    while True:
        for on in (False, True, True, False):
            if not on:
                session.sender.stop()
                session.sender.wait()
            elif session.sender.wait(0):
                next(queue)
                session.sender = SenderThread(session.opened())
                session.sender.start()
            yield


if __name__ == "__main__":
    sys.exit(main())
