"""Sending what waits in a store, parcel after parcel, each with its receipt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dermedge import UserError
from edge_app import unforeseen
from edge_app.i18n.language import N_, Message, error_message
from edge_app.referral import carriers
from edge_app.referral.alone import alone
from edge_app.referral.carriers import Carrier, Later, Refused
from edge_app.referral.carriers.outcome import UNFORESEEN
from edge_app.referral.outbox import STOPPED, Outbox, Status, must_take
from edge_app.referral.parcels import Parcel
from edge_app.store.damage import DAMAGED, LeftOut
from edge_app.store.records import StoreError
from edge_app.store.referrals import (
    NOT_WHOLE,
    RECEIVED,
    WAITING,
    Destination,
    Endpoint,
    StoredParcel,
)
from edge_app.store.store import Store

LONGEST_REST = 5.0  # s: the first parcel loads libraries, too
LONGEST_WAY = 30.0  # s that it gives way, should nobody say that it may go on
NOT_SOUND = (*DAMAGED, "tampered")
# Deleted meanwhile, and who deleted it has read that it may be there; or sent to another by now.
GONE = ("gone", "moved")
NO_DESTINATION = N_("its destination {receiver} is not on this device: choose another")


@dataclass
class Report:
    """What one round did."""

    busy: bool = False  # somebody else sends: nothing was done
    received: int = 0  # parcels
    put_off: int = 0  # referrals
    stopped: int = 0  # referrals
    damaged: LeftOut = field(default_factory=LeftOut)  # referrals: nobody knows what they ask


class Sender:
    """Sends what is due. To be used by one thread; `stop` may be set by any."""

    def __init__(
        self,
        store: Store,
        stop: threading.Event | None = None,
        connect: Callable[[Endpoint], Carrier] = carriers.connect,
        outbox: Outbox | None = None,
        share: float = 1.0,
        calm: threading.Event | None = None,
    ):
        """`share` : of one core's time that sending takes, so that the screen has the rest.

        `calm` : while it is not set, the next parcel waits, LONGEST_WAY at most.
        """
        self._store, self._connect = store, connect
        self._outbox = outbox or Outbox(store)
        self._stop = stop or threading.Event()
        self._calm = calm
        self._idle = 1 / share - 1  # s of rest for each s of work

    def run(self) -> Report:
        """One round over all that is due. Raises StoreError where the store was closed."""
        report = Report()
        with alone(self._store.path) as may:
            if not may:
                return Report(busy=True)
            links: dict[Endpoint, Carrier] = {}
            down: set[Endpoint] = set()
            try:
                for status in self._outbox.due(report.damaged):
                    if self._stop.is_set():
                        break
                    if status.state == STOPPED:
                        self._stop_referral(status, Message(NOT_WHOLE), "damaged")
                        report.stopped += 1
                        continue
                    self._send(status, links, down, report)
            finally:
                for link in links.values():
                    link.close()
        return report

    def _send(
        self, status: Status, links: dict[Endpoint, Carrier], down: set[Endpoint], report: Report
    ) -> None:
        """One referral: DICOM before FHIR, so that no request comes without its pictures."""
        endpoint = None
        try:
            try:
                destination = self._store.mail.destination(status.referral.destination)
            except StoreError as error:
                if error.code not in (*DAMAGED, "gone"):
                    raise
                words = Message(NO_DESTINATION, receiver=status.referral.receiver)
                raise Refused(words, "no-destination") from None
            for parcel in status.parcels:
                if parcel.state == RECEIVED:
                    continue
                must_take(destination, parcel.kind)
                endpoint = destination.endpoint(parcel.kind)
                if self._stop.is_set() or endpoint is None or endpoint in down:
                    return  # not its own fault: it stays due
                if endpoint not in links:
                    links[endpoint] = self._connect(endpoint)
                if self._calm is not None:
                    self._calm.wait(LONGEST_WAY)
                    if self._stop.is_set():
                        return
                begun = time.thread_time()
                if not self._deliver(links[endpoint], parcel, destination):
                    return  # it stays due, for where it goes now
                report.received += 1
                self._rest(time.thread_time() - begun)
        except Later as error:
            if error.down and endpoint is not None:
                down.add(endpoint)
            self._outbox.failed(status, error)
            report.put_off += 1
        except StoreError as error:
            if error.code in NOT_SOUND:  # the others are whole
                self._stop_referral(status, Message(NOT_WHOLE), error.code)
                report.stopped += 1
            elif error.code == "pseudonym":
                self._stop_referral(status, error_message(error), error.code)
                report.stopped += 1
            elif error.code not in GONE:
                raise
        except UserError as error:
            self._stop_referral(status, error_message(error), error.code)
            report.stopped += 1

    def _rest(self, worked: float) -> None:
        """Between two parcels; `stop` ends it."""
        if self._idle and worked > 0:
            self._stop.wait(min(worked * self._idle, LONGEST_REST))

    def _stop_referral(self, status: Status, words: Message, code: str) -> None:
        try:
            self._store.mail.stop(status.referral.id, words, code)
        except StoreError as error:
            if error.code != "gone":
                raise

    def _deliver(self, link: Carrier, stored: StoredParcel, destination: Destination) -> bool:
        """Send one parcel and keep its receipt; False where the addresses are others by now."""
        mail, again = self._store.mail, stored.state != WAITING
        data = mail.payload(stored)
        if not again:
            stored = mail.mark_sent(stored, destination.id)
        parcel = Parcel(
            stored.uid, stored.kind, stored.referral, stored.sequence, stored.sha256, data
        )
        try:
            receipt = link.deliver(parcel, again)
        except UserError:
            raise
        # Whatever a library raises on what comes from outside: nothing is given up for it.
        except Exception as error:
            unforeseen.report(error)
            words = Message(UNFORESEEN, fault=type(error).__name__)
            raise Later(words, "unforeseen") from error
        if mail.destination(destination.id) != destination:
            return False
        mail.receive(stored, receipt.place, receipt.references)
        return True
