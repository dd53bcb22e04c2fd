"""The page that asks, served to this machine alone.

Whoever has the address, which holds a random token, sees pictures of people: it is printed once, no
other origin may read it, and nothing is cached or logged.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler

from dermedge import UserError
from edge_app.labelling.page import html, in_each_language
from edge_app.labelling.sitting import Sitting
from edge_app.loopback import LoopbackServer
from edge_app.presentation.messages import error_line

MOST_BYTES = 200_000  # of what the page sends
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _Handler(BaseHTTPRequestHandler):
    server: _Http

    def do_GET(self) -> None:
        path = self._path()
        if path is None:
            return
        if path == "":
            nonce = secrets.token_urlsafe(16)
            body = self.server.page.replace("@NONCE@", nonce).encode()
            self._send(200, "text/html; charset=utf-8", body, POLICY.format(nonce=nonce))
        elif path == "state":
            self._json(lambda sitting: sitting.state())
        elif path.startswith("picture/"):
            self._picture(path.removeprefix("picture/"))
        else:
            self._send(404, "text/plain", b"")

    def do_POST(self) -> None:
        path = self._path()
        if path is None:
            return
        try:
            length = int(self.headers.get("Content-Length", ""))
            if not 0 <= length <= MOST_BYTES:
                raise ValueError
            given = json.loads(self.rfile.read(length) or b"{}")
            words = [str(given.get(name, "")) for name in ("id", "verdict", "diagnosis")]
        except (ValueError, AttributeError, RecursionError):
            self._send(400, "text/plain", b"")
            return
        if path == "answer":
            self._json(lambda sitting: sitting.answer(*words, given.get("outline", [])))
        elif path == "undo":
            self._json(lambda sitting: sitting.undo())
        else:
            self._send(404, "text/plain", b"")

    def _path(self) -> str | None:
        """The path behind the token; None where it was answered that there is nothing."""
        _, token, *rest = [*self.path.split("/", 2), "", ""]
        own = f"127.0.0.1:{self.server.server_address[1]}"
        # Another name for this address, or another page's request, is not ours.
        right = self.headers.get("Host") == own
        right = right and self.headers.get("Origin") in (None, f"http://{own}")
        if right and hmac.compare_digest(token.encode(), self.server.token.encode()):
            return rest[0]
        self._send(403, "text/plain", b"")
        return None

    def _picture(self, capture: str) -> None:
        try:
            with self.server.lock:
                body = self.server.sitting.picture(capture)
        except UserError:
            self._send(404, "text/plain", b"")
            return
        self._send(200, "image/jpeg", body)

    def _json(self, what) -> None:
        with self.server.lock:
            try:
                found, status = what(self.server.sitting) or {}, 200
            except UserError as error:
                found, status = {"error": in_each_language(partial(error_line, error))}, 409
        self._send(status, "application/json", json.dumps(found).encode())

    def _send(self, status: int, kind: str, body: bytes, policy: str = "default-src 'none'"):
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", policy),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass  # of people's pictures, nothing is written down


class _Http(LoopbackServer):
    def __init__(self, sitting: Sitting, page: str, port: int):
        self.sitting, self.page = sitting, page
        self.lock, self.token = threading.Lock(), secrets.token_urlsafe(24)
        super().__init__(port, _Handler)


class LabelServer:
    """A sitting on a port of the loopback interface, until it is closed."""

    def __init__(self, sitting: Sitting, port: int = 0):
        """Begin to serve. UserError where the port is taken."""
        self._http = _Http(sitting, html(), port)
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/{self._http.token}/"

    def wait(self) -> None:
        """Until it is closed."""
        self._thread.join()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
