"""Serves a built site, for trying it on this machine; a browser trusts it there without https."""

from __future__ import annotations

import functools
import threading
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

from dermedge import UserError
from edge_app.loopback import LoopbackServer
from edge_app.web.site import TYPES


class _Handler(SimpleHTTPRequestHandler):
    def guess_type(self, path) -> str:
        return TYPES.get(Path(path).suffix, "application/octet-stream")

    def log_message(self, format: str, *args: object) -> None:
        pass  # of what people open, nothing is written down


class Server:
    """A site on a port of the loopback interface, until it is closed."""

    def __init__(self, site: Path, port: int = 0):
        """Begin to serve. UserError where there is no site or the port is taken."""
        if not (site / "sw.js").is_file():
            raise UserError(
                "{path} is no site: make one by `dermedge web build`", code="web.site", path=site
            )
        handler = functools.partial(_Handler, directory=str(site))
        self._http = LoopbackServer(port, handler)
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/"

    def wait(self) -> None:
        """Until it is closed."""
        self._thread.join()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
