"""A server for the browsers of this machine, as the pages need it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from socketserver import BaseRequestHandler

from dermedge import UserError


class LoopbackServer(ThreadingHTTPServer):
    """On 127.0.0.1. Threads that answer end with the process."""

    daemon_threads = True

    def __init__(self, port: int, handler: Callable[..., BaseRequestHandler]):
        """`port` 0: any that is free. UserError where it is taken."""
        try:
            super().__init__(("127.0.0.1", port), handler)
        except OSError as error:
            raise UserError(
                "port {port} cannot be had ({reason}): give another --port, or none",
                code="port",
                port=port,
                reason=error.strerror,
            ) from error

    def serve_forever(self, poll_interval: float = 0.05) -> None:
        super().serve_forever(poll_interval)  # by so much, at most, a close waits

    def handle_error(self, request, client_address) -> None:
        # A page that is left or loaded again breaks off what it had asked for.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
