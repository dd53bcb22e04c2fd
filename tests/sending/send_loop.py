"""A process that sends a store until it is killed, and tells each receipt that it kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edge_app.referral.outbox import Outbox
from edge_app.referral.sender import Sender
from edge_app.store.store import Store


def tell(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())


def send_for_ever(path: str) -> None:
    cases = Store.open(Path(path), "correct horse")
    keep = cases.mail.receive

    def receive(parcel, *values):
        kept = keep(parcel, *values)
        tell("received", parcel.uid)
        return kept

    cases.mail.receive = receive
    sender = Sender(cases, outbox=Outbox(cases, lambda *_: 0.0))
    tell("started")
    while cases.mail.waiting():
        sender.run()
    tell("done")


if __name__ == "__main__":
    send_for_ever(*sys.argv[1:])
