"""DICOM's own protocol: C-STORE to store, C-GET to see that it is there (PS3.4, B and C; PS3.15
for TLS).

Storage Commitment would only say that a number is known, and calls back on a port of this device,
which no clinic's router lets in. C-GET brings the bytes back on the connection that is open.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from contextlib import closing
from typing import Any

from dermedge import UserError
from edge_app.i18n.language import N_, Message
from edge_app.referral.carriers import tls
from edge_app.referral.carriers.instances import Names, names, same
from edge_app.referral.carriers.outcome import (
    BUSY,
    CHANGED,
    NOBODY,
    NOT_THERE,
    Later,
    Receipt,
    Refused,
)
from edge_app.referral.parcels import Parcel
from edge_app.store.referrals import Endpoint

# SOP classes: Verification, and Study Root Query/Retrieve Information Model - GET.
VERIFICATION, GET = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.2.2.3"
CONNECT, ANSWER = 10.0, 60.0  # s
# Of an association that was rejected (PS3.8, 9.3.4): its result; source and reason.
TRANSIENT, NOT_CALLED = 2, (1, 7)
OWN_TITLE, ANY_TITLE = "DERMEDGE", "ANY-SCP"
NO_ADDRESS = N_("{address} is no address of DICOM: enter HOST:PORT")
INSECURE = N_("{address} is not on this computer, and no certificate is entered: DICOM needs TLS")
REJECTED = N_("{place} lets no device in that calls itself {title}: ask its administrator")
OTHER_TITLE = N_("{place} is not called {title}: enter its AE title")
NO_CLASS = N_("{place} does not take this kind of picture in its encoding: ask its administrator")
NO_GET = N_(
    "{place} cannot be asked what it has (C-GET), so that nothing would show that a picture "
    "arrived: ask its administrator to allow it, or use DICOMweb"
)
NOT_STORED = N_("{place} did not store the parcel (status {reason}): ask its administrator")
NO_ROOM = N_("{place} has no room or is busy (status {reason}): it is tried again")
# As Orthanc does, where a device that it does not know wants to fetch.
CUT = N_(
    "{place} ended the connection, it is tried again; if that lasts, ask its administrator whether "
    "this device may store and fetch there (C-STORE, C-GET)"
)
THERE = N_("{place} answers as DICOM")


class Dimse:
    """One DICOM node, HOST:PORT. To be used by one thread at a time. Each parcel has a connection
    of its own: after a fault one is dead (fellowoakdicom/fo-dicom#1359).
    """

    kinds = frozenset({"dicom"})

    def __init__(self, endpoint: Endpoint):
        import pynetdicom  # noqa: F401  # says that it is missing

        # It would print addresses.
        logging.getLogger("pynetdicom").addHandler(logging.NullHandler())
        logging.getLogger("pynetdicom").propagate = False
        found = re.fullmatch(r"\[?([^\s/\]]+?)\]?:(\d{1,5})", endpoint.address)
        if not found or not 0 < int(found[2]) < 2**16:
            raise UserError(Message(NO_ADDRESS, address=endpoint.address), code="no-address")
        self._host, self._port, self.place = found[1], int(found[2]), endpoint.address
        secure = bool(endpoint.authorities or endpoint.certificate)
        if not secure and self._host not in tls.LOOPBACK:
            raise UserError(Message(INSECURE, address=endpoint.address), code="insecure")
        self._tls = (tls.context(endpoint), self._host) if secure else None
        self._called = endpoint.called or ANY_TITLE
        self._calling = endpoint.calling or OWN_TITLE

    def check(self) -> Message:
        with closing(_Link(self, [(VERIFICATION, [])], {})) as link:
            self._must_be_well(link.association.send_c_echo())
        return Message(THERE, place=self.place)

    def deliver(self, parcel: Parcel, again: bool) -> Receipt:
        where = names(parcel.data)
        back: dict[str, bytes] = {}

        wanted = [(where.sop_class, [where.transfer_syntax]), (GET, [])]
        with closing(_Link(self, wanted, back, where.sop_class)) as link:
            if not link.takes(GET):
                raise Refused(Message(NO_GET, place=self.place), "no-get")
            if not link.takes(where.sop_class):
                raise Refused(Message(NO_CLASS, place=self.place), "no-class")
            if again and self._there(link, where, parcel.data, back):
                return Receipt(self.place)
            self._store(link, parcel.data)
            if not self._there(link, where, parcel.data, back):
                raise Later(Message(NOT_THERE, place=self.place), "not-there")
        return Receipt(self.place)

    def _store(self, link: _Link, data: bytes) -> None:
        import pydicom

        try:
            status = link.association.send_c_store(pydicom.dcmread(io.BytesIO(data)))
        except (RuntimeError, ValueError) as error:  # the connection is gone
            raise Later(Message(CUT, place=self.place), "broken") from error
        self._must_be_well(status)

    def _must_be_well(self, status) -> None:
        """Raises Later or Refused for a status that is neither success nor a warning."""
        if not status or "Status" not in status:
            raise Later(Message(CUT, place=self.place), "broken")
        code = int(status.Status)
        values = {"place": self.place, "reason": f"{code:04X}"}
        if code == 0x0110 or 0xA700 <= code < 0xA800:
            raise Later(Message(NO_ROOM, **values), "failed", down=True)
        if code != 0 and not 0xB000 <= code < 0xC000:
            raise Refused(Message(NOT_STORED, **values), "failed")

    def _there(self, link: _Link, where: Names, data: bytes, back: dict[str, bytes]) -> bool:
        """Whether it is there as it is here. Raises Refused where other content is."""
        from pydicom.dataset import Dataset

        back.clear()
        query = Dataset()
        query.QueryRetrieveLevel = "IMAGE"
        query.StudyInstanceUID = where.study
        query.SeriesInstanceUID = where.series
        query.SOPInstanceUID = where.instance
        try:
            statuses = [status for status, _ in link.association.send_c_get(query, GET)]
        except (RuntimeError, ValueError) as error:
            raise Later(Message(CUT, place=self.place), "broken") from error
        if not statuses or not statuses[-1] or "Status" not in statuses[-1]:
            raise Later(Message(CUT, place=self.place), "broken")
        theirs = back.get(where.instance)
        if theirs is None:
            return False
        if not same(data, theirs):
            raise Refused(Message(CHANGED, place=self.place), "changed")
        return True

    def close(self) -> None:
        """Each parcel had its own connection."""


class _Link:
    """One association. `back` gets the files that C-GET brings, by their numbers."""

    def __init__(self, node: Dimse, wanted: list, back: dict[str, bytes], brought: str = ""):
        from pynetdicom import AE, build_role, evt

        entity = AE(node._calling)
        entity.connection_timeout = CONNECT
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = ANSWER
        for syntax, transfer in wanted:
            entity.add_requested_context(syntax, *([transfer] if transfer else []))
        roles: Any = [build_role(brought, scu_role=True, scp_role=True)] if brought else None
        handlers: Any = [(evt.EVT_C_STORE, _kept, [back])]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.association = entity.associate(
                node._host, node._port, ae_title=node._called, ext_neg=roles,
                tls_args=node._tls, evt_handlers=handlers,
            )  # fmt: skip
        reply = self.association.acceptor.primitive
        if self.association.is_rejected:
            if reply is not None and reply.result == TRANSIENT:  # as with too many connections
                status = f"{reply.result}-{reply.result_source}-{reply.diagnostic}"
                words = Message(BUSY, place=node.place, status=status)
                raise Later(words, "busy", down=True)
            words = Message(REJECTED, place=node.place, title=node._calling)
            if reply is not None and (reply.result_source, reply.diagnostic) == NOT_CALLED:
                words = Message(OTHER_TITLE, place=node.place, title=node._called)
            raise Refused(words, "rejected")
        if not self.association.is_established:
            let_in = reply is not None and reply.result == 0
            if brought and let_in and not self.association.accepted_contexts:  # none of what we ask
                raise Refused(Message(NO_CLASS, place=node.place), "no-class")
            if node._tls:  # pynetdicom does not say that certificates are why
                tls.must_agree(node._tls[0], node._host, node._port, node.place)
            raise Later(Message(NOBODY, place=node.place), "unreachable", down=True)

    def takes(self, syntax: str) -> bool:
        return any(one.abstract_syntax == syntax for one in self.association.accepted_contexts)

    def close(self) -> None:
        if self.association.is_established:
            self.association.release()


def _kept(event, back: dict[str, bytes]) -> int:
    """Of what C-GET brings."""
    back[str(event.request.AffectedSOPInstanceUID)] = event.encoded_dataset()
    return 0x0000
