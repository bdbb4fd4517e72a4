"""Processes that start with TensorFlow imported: each is forked from a server that has done nothing else.

Importing TensorFlow takes five seconds of processor time. A process that trains or converts is forked from a server
that has imported it and run nothing. It is a separate process with its own memory, signals and exit code. A process
that is started to look at imports or at start-up is never forked, unless its test says so with `warm`.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import types
from typing import Any

# Modules and commands of ours that are forked.
WARM = (["-m", "export.conversion.worker"], ["-m", "zoo", "train"], ["-m", "zoo", "tune"])
# Variables that are read when TensorFlow or Keras is imported; the server has its own.
AT_IMPORT = ("KERAS_", "TF_", "ZOO_", "XLA_", "PYTHONHASHSEED", "MALLOC_")
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


def _same(environment: dict[str, str] | None) -> bool:
    """Return whether an environment has the same variables that are read at import."""
    given = os.environ if environment is None else environment
    # Keras' own default is TensorFlow.
    given = {"KERAS_BACKEND": "tensorflow", **given}
    pick = [{k: v for k, v in found.items() if k.startswith(AT_IMPORT)} for found in (given, _server_environment())]
    return pick[0] == pick[1]


def _server_environment() -> dict[str, str]:
    return {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}


class Server:
    """The process that forks."""

    def __init__(self, root: str) -> None:
        # What is forked twice becomes a child of this process, which waits for it.
        ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)
        self._socket, theirs = socket.socketpair()
        command = [sys.executable, __file__, str(theirs.fileno())]
        environment = {**_server_environment(), "PYTHONPATH": root}
        self._process = _POPEN(command, pass_fds=[theirs.fileno()], env=environment, cwd=root)
        theirs.close()
        atexit.register(self._process.kill)

    def fork(self, request: dict[str, Any], handles: list[int]) -> int:
        """Start a process with these handles as standard input, output and error; returns its number."""
        content = json.dumps(request).encode()
        socket.send_fds(self._socket, [len(content).to_bytes(8, "big")], handles)
        self._socket.sendall(content)
        return int.from_bytes(_received(self._socket, 8), "big")


_POPEN = subprocess.Popen
_server: list[Server] = []


class Popen(_POPEN):
    """subprocess.Popen that forks what is known to be warm, and what is started with `warm=True`."""

    def __init__(self, args: Any, *others: Any, warm: bool = False, **options: Any) -> None:
        command = [os.fspath(part) for part in args] if isinstance(args, (list, tuple)) else []
        self._warm = (
            not others
            and command[:1] == [sys.executable]
            and (warm or any(command[1 : 1 + len(start)] == start for start in WARM))
            and not options.get("pass_fds")
            and not options.get("start_new_session")
            and _same(options.get("env"))
        )
        super().__init__(args, *others, **options)

    def _execute_child(self, *arguments: Any) -> None:
        if not self._warm:
            super()._execute_child(*arguments)
            return
        names = _POPEN._execute_child.__code__.co_varnames[1 : 1 + len(arguments)]
        given = dict(zip(names, arguments, strict=True))
        if not _server:
            _server.append(Server(ROOT))
        environment = {**os.environ} if given["env"] is None else dict(given["env"])
        request = {"arguments": [os.fspath(part) for part in given["args"]][1:], "environment": environment}
        request["folder"] = os.fspath(given["cwd"] or os.getcwd())
        pipes = ((given["p2cread"], 0), (given["c2pwrite"], 1), (given["errwrite"], 2))
        self.pid = _server[0].fork(request, [own if handle == -1 else handle for handle, own in pipes])
        self._child_created = True
        self._close_pipe_fds(*(given[name] for name in PIPES))


PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _received(channel: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        more = channel.recv(count - len(content))
        if not more:
            raise EOFError("The process that forks has ended")
        content += more
    return content


def serve(channel: socket.socket) -> None:
    """Fork a process for each request; returns in the forked process, to run what was asked for."""
    import gc

    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    import export  # noqa: F401

    gc.collect()
    gc.freeze()
    while True:
        size, handles, _, _ = socket.recv_fds(channel, 8, 3)
        if not size:
            os._exit(0)
        request = json.loads(_received(channel, int.from_bytes(size, "big")))
        ends = os.pipe()
        if not (middle := os.fork()):
            middle = os.getpid()
            if child := os.fork():
                os.write(ends[1], child.to_bytes(8, "big"))
                os._exit(0)
            channel.close()
            # The kernel would tell this process of that one's end as of its parent's.
            while os.getppid() == middle:
                time.sleep(0.001)
            _become(request, [*handles, *ends])
            return
        # Once the process between has ended, and not before, the child is one of the process that asked for it.
        os.waitpid(middle, 0)
        channel.sendall(os.read(ends[0], 8))
        for handle in (*handles, *ends):
            os.close(handle)


def _become(request: dict[str, Any], handles: list[int]) -> None:
    """Take on the handles, the environment, the folder and the arguments of a process."""
    for place, handle in enumerate(handles):
        if place < 3:
            os.dup2(handle, place)
        os.close(handle)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[:0] = [
        p for p in request["environment"].get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path
    ]
    sys.argv = request["arguments"]


def main() -> None:
    """Serve, and run in each forked process what it is for, as Python's own command line does."""
    import runpy

    serve(socket.socket(fileno=int(sys.argv[1])))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    first, *rest = sys.argv
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv, sys.modules["__main__"] = ["-c", *rest[1:]], types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(first)))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    main()
