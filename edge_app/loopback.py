"""A server for the browsers of this machine, as the pages need it."""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer


class LoopbackServer(ThreadingHTTPServer):
    """On 127.0.0.1. Threads that answer end with the process."""

    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        # A page that is left or loaded again breaks off what it had asked for.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
