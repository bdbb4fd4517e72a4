"""The fork server and its worker processes, from the parent's side."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from export.conversion.worker import child_environment, registering_modules
from zoo.common.errors import ExportError


class ForkServer:
    """A process that forks workers after importing what they share, but no runtime; leaving the context ends it."""

    def __enter__(self) -> ForkServer:
        self._log = tempfile.TemporaryFile()
        self._control, remote = socket.socketpair()
        with remote:
            command = [sys.executable, "-m", "export.benchmark.worker", str(remote.fileno())]
            pipes = {"stdin": subprocess.PIPE, "stdout": self._log, "stderr": self._log}
            self.process = subprocess.Popen(command, env=child_environment(), pass_fds=[remote.fileno()], **pipes)
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        self.process.kill()
        self.process.stdin.close()
        self.process.wait()
        self._log.close()

    def fork(self, connection: socket.socket, log: int) -> int:
        """Return the process id of a new worker that serves a connection and writes its output to a file."""
        return self._request(lambda: socket.send_fds(self._control, [b"f"], [connection.fileno(), log]))

    def wait(self, pid: int) -> int:
        """Return the exit code of a worker, negative for a signal."""
        return self._request(lambda: self._control.sendall(pid.to_bytes(4, "big")))

    def _request(self, send: Callable[[], Any]) -> int:
        """Send a request and return the reply, a number of four bytes; raises ExportError if the server died."""
        reply = b""
        with contextlib.suppress(OSError):
            send()
            reply = self._control.recv(4, socket.MSG_WAITALL)
        if len(reply) < 4:
            raise ExportError(f"The benchmark failed: {describe_exit(self.process.wait(), self._log)}")
        return int.from_bytes(reply, "big", signed=True)


class WorkerProcess:
    """A worker; see `export.benchmark.worker.Worker` for its methods. Leaving the context ends it.

    Args:
        server: the server that forks it.

    Attributes:
        pid: its process id.
        code: its exit code, None while it runs.
    """

    def __init__(self, server: ForkServer) -> None:
        self._server = server
        self.code: int | None = None

    def __enter__(self) -> WorkerProcess:
        self._log = tempfile.TemporaryFile()
        connection, remote = socket.socketpair()
        with remote, connection:
            self.pid = self._server.fork(remote, self._log.fileno())
            self._stream = connection.makefile("rw", encoding="utf-8")
        self._pending: list[str] = []
        self.send("start", modules=registering_modules())
        self.receive()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ExportError, ProcessLookupError):
            # Without the fork server there is no exit code.
            if self.code is None:
                os.kill(self.pid, signal.SIGKILL)
                self.code = self._server.wait(self.pid)
        with contextlib.suppress(OSError):
            # A pending request cannot be flushed to a dead process.
            self._stream.close()
        self._log.close()

    def call(self, method: str, **arguments: Any) -> Any:
        """Send a request and return its result."""
        self.send(method, **arguments)
        return self.receive()

    def send(self, method: str, **arguments: Any) -> None:
        """Send a request; `receive` returns the results in the same order."""
        self._pending.append(arguments.get("name", "an artifact"))
        with contextlib.suppress(OSError):
            # A dead process sends no reply, and `receive` reports its exit.
            self._stream.write(json.dumps({"method": method, **arguments}) + "\n")
            self._stream.flush()

    def receive(self) -> Any:
        """Return the result of the oldest pending request.

        Raises:
            ExportError: the request failed, or the process died.
        """
        name, line = self._pending.pop(0), self._read()
        reply = json.loads(line) if line else {"error": self._exit_text()}
        if "error" in reply:
            raise ExportError(f"{name} could not be measured: {reply['error']}")
        return reply["result"]

    def _read(self) -> str:
        try:
            return self._stream.readline()
        except OSError:
            return ""

    def _exit_text(self) -> str:
        if self.code is None:
            self.code = self._server.wait(self.pid)
        return describe_exit(self.code, self._log)


def describe_exit(code: int, log: Any) -> str:
    """Describe in one line how a process ended, with its last line of output; a negative code is a signal."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
    return f"the process {how}. Its last output: {(lines or ['none'])[-1][:300]}"
