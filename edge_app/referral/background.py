"""Sending and fetching beside the screens, as long as a store is open."""

from __future__ import annotations

import socket
import threading
import time

from edge_app import unforeseen
from edge_app.referral.alone import alone
from edge_app.referral.collector import Collector
from edge_app.referral.sender import Sender
from edge_app.store.damage import pass_over
from edge_app.store.memory import overwrite_freed
from edge_app.store.records import StoreError
from edge_app.store.store import Store

LOOK = 5.0  # s between two looks at what is due
POLL = 300.0  # s between two questions for answers
SHARE = 0.1  # of one core, that sending takes from the camera and the networks


def may_reach() -> bool:
    """Whether this process may use the network. A kiosk's unit forbids it: there a service of its
    own sends, `dermedge send --watch`."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


class SenderThread:
    """A thread that sends what a store holds. Each method may be called from any thread.

    It ends by itself when the store is closed. `stop` does not wait: the store may be closed at
    once, and what is on its way is then not marked as received, but sent or found again later.
    """

    def __init__(self, store: Store):
        self._store = store
        self._stop, self._nudge = threading.Event(), threading.Event()
        self._calm = threading.Event()  # not set while a picture is analysed
        self._calm.set()
        self._thread = threading.Thread(target=self._run, name="dermedge-sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def nudge(self) -> None:
        """Something was queued: look at once."""
        self._nudge.set()

    def give_way(self, busy: bool) -> None:
        """Whether somebody waits for a result now: the next parcel then waits, too."""
        if busy:
            self._calm.clear()
        else:
            self._calm.set()

    def stop(self) -> None:
        self._stop.set()
        self._calm.set()
        self._nudge.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Until the thread has ended, so long at most; whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._work()
        except StoreError as error:
            if error.code != "closed":
                unforeseen.report(error)
        except Exception as error:
            unforeseen.report(error)
        finally:
            overwrite_freed()  # pictures that were sent

    def _work(self) -> None:
        if not may_reach():
            return
        sender = Sender(self._store, self._stop, share=SHARE, calm=self._calm)
        collector = Collector(self._store, self._stop)
        asked, lasting = -POLL, unforeseen.Lasting()
        faults: dict[str, list[str]] = {"send": [], "ask": []}
        while not self._stop.is_set():
            deed = "send"
            try:
                if self._store.mail.waiting(pass_over):
                    sender.run()
                faults[deed] = []
                if time.monotonic() - asked >= POLL:
                    deed, asked = "ask", time.monotonic()
                    with alone(self._store.path) as may:
                        if may:
                            collector.run()
                    faults[deed] = []
            except StoreError as error:
                if error.code == "closed":
                    raise
                faults[deed] = [unforeseen.line(error)]  # a full disk may have room later
            lasting.say([*faults["send"], *faults["ask"]])
            self._nudge.wait(LOOK)
            self._nudge.clear()
