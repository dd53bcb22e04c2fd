"""The page that asks, served to this machine alone.

Whoever has the address, which holds a random token, sees pictures of people: it is printed once, no
other origin may read it, and nothing is cached or logged.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from dermedge import DISCLAIMER, UserError
from dermedge.taxonomy import CLASSES, TITLES
from edge_app.labelling.queue import Question, is_allowed, shown
from edge_app.store.labels import CONFIRMED, Label, Polygon
from edge_app.store.records import StoreError
from edge_app.store.store import Store

MOST_BYTES = 200_000  # of what the page sends
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Sitting:
    """One person's way through the questions. Not thread-safe: the server holds a lock."""

    def __init__(self, store: Store, questions: Sequence[Question], by: str, role: str, model: str):
        self._store, self._questions = store, list(questions)
        self._by, self._role, self._model = by, role, model
        self._answers: list[Label] = []  # as they are kept, one for each question answered
        self._at = 0

    def state(self) -> dict[str, Any]:
        """What the page shows now; "question" is None at the end."""
        question = self._next()
        found: dict[str, Any] = {
            "done": self._at,
            "count": len(self._questions),
            "by": f"{self._by}, {self._role}",
            "disclaimer": DISCLAIMER,
            "classes": {name: TITLES[name] for name in CLASSES},
            "question": None,
        }
        if question is not None:
            found["question"] = {
                "id": question.capture,
                "size": question.size,
                "outline": question.outline,
                "probabilities": question.probabilities if question.judged else {},
                "judged": question.judged,
            }
        return found

    def picture(self, capture: str) -> bytes:
        """JPEG of the picture that is asked about; StoreError for any other."""
        question = self._now(capture)
        return shown(self._store.picture(question.capture))

    def answer(self, capture: str, verdict: str, diagnosis: str, outline: Any) -> None:
        """Save an answer, and go on. StoreError where it makes no sense, or is to another."""
        question = self._now(capture)
        polygons = _polygons(outline, question.size) if verdict == CONFIRMED else ()
        label = Label(verdict, diagnosis, polygons, self._by, self._role, self._model)
        self._answers.append(self._store.labels.add(question.capture, label))
        self._at += 1

    def undo(self) -> None:
        """Take the last answer back, and ask again."""
        if not self._at:
            raise StoreError("there is no answer to take back", code="invalid")
        self._store.labels.undo(self._questions[self._at - 1].capture, self._answers[-1])
        self._answers.pop()
        self._at -= 1

    def _next(self) -> Question | None:
        """The one that is asked about now.

        Meanwhile its picture may have been deleted, its use forbidden, or somebody else may have
        labelled it: it is asked no more.
        """
        while self._at < len(self._questions):
            capture = self._questions[self._at].capture
            if is_allowed(self._store, capture) and self._store.labels.of(capture) is None:
                return self._questions[self._at]
            del self._questions[self._at]
        return None

    def _now(self, capture: str) -> Question:
        question = self._next()
        if question is None or question.capture != capture:
            raise StoreError("another picture is asked about now: reload the page", code="invalid")
        return question


def _polygons(outline: Any, size: tuple[int, int]) -> tuple[Polygon, ...]:
    try:
        found = tuple(tuple((float(x), float(y)) for x, y in polygon) for polygon in outline)
    except (TypeError, ValueError, OverflowError):
        raise StoreError("an outline is no list of points", code="invalid") from None
    inside = all(0 <= x < size[0] and 0 <= y < size[1] for polygon in found for x, y in polygon)
    if not inside:
        raise StoreError("an outline lies off the picture", code="invalid")
    return found


class _Handler(BaseHTTPRequestHandler):
    server: _Http

    def do_GET(self) -> None:
        path = self._path()
        if path is None:
            return
        if path == "":
            nonce = secrets.token_urlsafe(16)
            page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
            body = page.replace("@NONCE@", nonce).encode()
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
        try:
            with self.server.lock:
                found, status = what(self.server.sitting) or {}, 200
        except UserError as error:
            found, status = {"error": str(error)}, 409
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


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, sitting: Sitting, port: int):
        self.sitting, self.lock, self.token = sitting, threading.Lock(), secrets.token_urlsafe(24)
        super().__init__(("127.0.0.1", port), _Handler)


class LabelServer:
    """A sitting on a port of the loopback interface, until it is closed."""

    def __init__(self, sitting: Sitting, port: int = 0):
        """Begin to serve. UserError where the port is taken."""
        try:
            self._http = _Http(sitting, port)
        except OSError as error:
            raise UserError(
                "port {port} cannot be had ({reason}): give another --port, or none",
                code="label.port",
                port=port,
                reason=error.strerror,
            ) from error
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
