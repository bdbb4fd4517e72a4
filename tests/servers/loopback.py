"""A server on the loopback interface, for the hubs of the tests."""

from __future__ import annotations

import contextlib
import http.server
import threading


class Quiet:
    """A handler of requests that logs nothing; `hub` is its server."""

    def log_message(self, *arguments):
        """Log nothing."""


class LoopbackServer:
    """Serves `handler`, a class of handlers; its address stays the same while it is down."""

    handler: type

    def __init__(self):
        self.requests, self.port, self._server = [], 0, None

    @property
    def address(self):
        """Where a client finds the server."""
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        """Serve until `stop`."""
        handler = type("BoundHandler", (self.handler,), {"hub": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        """Close the port."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
        self._server = None

    @contextlib.contextmanager
    def down(self):
        """Stop the server for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()
