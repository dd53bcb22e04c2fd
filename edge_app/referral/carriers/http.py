"""HTTP to a receiver: encrypted, bounded, to nobody else, and what its refusals mean."""

from __future__ import annotations

import math
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from urllib.parse import SplitResult, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth

from dermedge import UserError
from edge_app.i18n.language import N_, Message, printable
from edge_app.referral.carriers import tls
from edge_app.referral.carriers.outcome import (
    BROKEN,
    BUSY,
    NOBODY,
    SLOW,
    TOO_LONG,
    Later,
    Refused,
)
from edge_app.store.referrals import Endpoint

CONNECT, READ = 10.0, 60.0  # s: to reach a receiver, and between two pieces of its answer
WHOLE = 600.0  # s for an answer
SMALL = 8 * 2**20  # bytes of an answer that is no picture
PIECE = 2**16

INSECURE = N_("{address} is not encrypted: enter an address that begins with https://")
NO_ADDRESS = N_("{address} is no address of the web: enter one that begins with https://")
NO_TOKEN = N_("the token for {place} holds characters that no token has: enter it again")
REDIRECT = N_("{place} sends to another address ({other}): if that is right, enter it instead")
# HTTP statuses that stay as they are until somebody does something.
STOPS = {
    401: N_("{place} does not know this device (401): check the name, password or token"),
    403: N_("{place} does not let this device in (403): ask its administrator"),
    409: N_("{place} says that this is in conflict with what it has (409): {reason}"),
    412: N_(
        "{place} has several records under one number of this referral (412): ask its administrator"
    ),
    413: N_("{place} takes no parcel of this size (413): ask its administrator to raise the limit"),
    422: N_("{place} does not understand the referral (422): {reason}"),
}
FAULT = N_("{place} has a fault of its own ({status}): it is tried again; tell its administrator")
NOT_TAKEN = N_("{place} did not take it ({status}): check the address; it is tried again")
NOT_TAKEN_AS = N_("{place} did not take it ({status}), it is tried again: {reason}")


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes


class _Session(requests.Session):
    """Makes nothing of a redirection: what it names may be no address at all."""

    def get_redirect_target(self, resp):
        return None


class _Adapter(HTTPAdapter):
    """Trusts whom the endpoint trusts, and nobody besides."""

    def __init__(self, context: ssl.SSLContext):
        self._context = context
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args, **values):
        return super().init_poolmanager(*args, ssl_context=self._context, **values)

    def cert_verify(self, conn, url, verify, cert):
        """Requests would add its own list of authorities."""

    def build_connection_pool_key_attributes(self, request, verify, cert=None):
        parts = urlsplit(request.url)
        host = {"scheme": parts.scheme, "host": parts.hostname, "port": parts.port}
        return host, {}


class Web:
    """One receiver on the web. To be used by one thread at a time.

    Raises UserError for an address without encryption beyond this computer.
    """

    def __init__(self, endpoint: Endpoint):
        self.base = endpoint.address.rstrip("/")
        parts = _parts(self.base)
        if parts is None:
            raise UserError(Message(NO_ADDRESS, address=endpoint.address), code="no-address")
        if parts.scheme == "http" and parts.hostname not in tls.LOOPBACK:
            raise UserError(Message(INSECURE, address=endpoint.address), code="insecure")
        self.place = parts.netloc
        if not re.fullmatch("[!-~]*", endpoint.token):
            raise UserError(Message(NO_TOKEN, place=self.place), code="token")
        self._session = _Session()
        self._session.trust_env = False  # no proxy or password of this computer's user
        self._session.mount("http://", HTTPAdapter(max_retries=0))
        if parts.scheme == "https":
            context = tls.context(endpoint)
            self._session.mount("https://", _Adapter(context))
            self._must_agree = partial(
                tls.must_agree, context, parts.hostname or "", parts.port or 443, self.place
            )
        if endpoint.token:
            self._session.headers["Authorization"] = f"Bearer {endpoint.token}"
        elif endpoint.user:
            self._session.auth = HTTPBasicAuth(endpoint.user.encode(), endpoint.password.encode())

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], data: bytes = b"",
        most: int = SMALL, params: Mapping[str, str | list[str]] | None = None,
    ) -> Response:  # fmt: skip
        """Raises Later where nobody answers as they should; Refused for a redirection.

        `most` : bytes that the answer may have.
        """
        try:
            with self._session.request(
                method, f"{self.base}{path}", headers=headers, data=data or None, params=params,
                timeout=(CONNECT, READ), allow_redirects=False, stream=True,
            ) as found:  # fmt: skip
                # From here: what was sent before it may have gone by a bad line.
                end = time.monotonic() + WHOLE
                body = bytearray()
                for piece in found.iter_content(PIECE):
                    body += piece
                    if len(body) > most:
                        raise Later(Message(TOO_LONG, place=self.place), "long")
                    if time.monotonic() > end:
                        raise Later(Message(SLOW, place=self.place), "timeout", down=True)
        except requests.exceptions.SSLError as error:
            self._must_agree()
            raise Later(Message(BROKEN, place=self.place), "broken") from error
        except requests.exceptions.ConnectTimeout as error:
            raise Later(Message(NOBODY, place=self.place), "unreachable", down=True) from error
        except requests.exceptions.Timeout as error:
            raise Later(Message(SLOW, place=self.place), "timeout", down=True) from error
        except requests.exceptions.ConnectionError as error:
            if "NewConnectionError" in repr(error) or "NameResolution" in repr(error):
                raise Later(Message(NOBODY, place=self.place), "unreachable", down=True) from error
            raise Later(Message(BROKEN, place=self.place), "broken") from error
        except requests.exceptions.RequestException as error:
            raise Later(Message(BROKEN, place=self.place), "broken") from error
        response = Response(found.status_code, found.headers, bytes(body))
        if 300 <= response.status < 400:
            other = _base(str(response.headers.get("Location", "")), path)
            other = printable(other)[:200]
            raise Refused(Message(REDIRECT, place=self.place, other=other), "redirect")
        return response

    def must_be_well(self, response: Response, reason: str = "") -> None:
        """Raises Later or Refused for a status that is none of success."""
        status, values = response.status, {"place": self.place}
        if 200 <= status < 300:
            return
        if status in STOPS:
            said = reason or Message(N_("it does not say why"))
            raise Refused(Message(STOPS[status], **values, reason=said), str(status))
        wait = retry_after(response.headers.get("Retry-After", ""))
        down = status in (429, 503)
        words = BUSY if down else FAULT if status >= 500 else NOT_TAKEN
        if status == 400:
            reason = reason or _title(response.body)
        if reason and words is NOT_TAKEN:
            words, values["reason"] = NOT_TAKEN_AS, reason
        raise Later(Message(words, **values, status=status), str(status), wait, down)

    def close(self) -> None:
        self._session.close()


def _parts(address: str) -> SplitResult | None:
    """An address that paths can be put behind; None where it is none."""
    try:
        parts = urlsplit(address)
        known = parts.port != 0  # a port that cannot be raises, and so does a name
        name = (parts.hostname or "").encode("idna")
    except ValueError:
        return None
    known = known and parts.scheme in ("http", "https") and bool(name)
    more = parts.query or parts.fragment or re.search(r"[@\s]", parts.netloc)
    return parts if known and not more else None


def _base(location: str, path: str) -> str:
    """What to enter so that a request for `path` goes to `location`; else that itself."""
    bare = location.partition("?")[0]
    return bare.removesuffix(path) if path and bare.endswith(path) else location


def retry_after(value: str) -> float:
    """Seconds that a receiver asks to wait (RFC 9110, 10.2.3); 0 where it does not say."""
    if re.fullmatch(r"\d{1,9}", value.strip()):
        return float(value)
    try:
        left = parsedate_to_datetime(value) - datetime.now(timezone.utc)
    except (TypeError, ValueError):
        return 0.0
    seconds = left.total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _title(page: bytes) -> str:
    """What a proxy says of a 400, as nginx of a certificate that has expired; else empty."""
    found = re.search(rb"(?i)<title>([^<]{1,200})</title>", page)
    title = " ".join(found[1].decode("utf-8", "replace").split()) if found else ""
    title = title.removeprefix("400 ")
    return "" if title == "Bad Request" else printable(title)
