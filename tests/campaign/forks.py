"""Processes that begin with what is slow to import, forked from one that does nothing else.

    python -m tests.campaign.forks MODULE ...

imports modules and then forks a process for each call that it reads. TensorFlow takes seconds to
import; it starts its threads when it first computes, and until then can be forked.
"""

import contextlib
import importlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any


class Forks:
    """Calls functions, each in a process of its own that is killed if it takes too long.

    Args:
        modules: what is imported before; none of them may compute with TensorFlow.
        folder: where the processes run, and import from.
        environment: what of their environment differs from this one's.
    """

    def __init__(
        self,
        modules: Sequence[str],
        folder: pathlib.Path,
        environment: Mapping[str, str] | None = None,
    ):
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
        self._running: int | None = None
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign.forks", *modules],
            cwd=folder,
            env={**os.environ, **quiet, **(environment or {})},
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *error: object) -> None:
        if self._running is not None:
            self._kill(self._running)
        self._server.kill()
        self._server.communicate()

    def run(self, function: str, *arguments: Any, seconds: float | None = None) -> int:
        """Calls a function, and waits for the process to end.

        Args:
            function: "module:name"; what it returns is the exit code, 0 for `None`.
            arguments: what JSON can hold.
            seconds: how long it may take; `None` for ever.

        Returns:
            The exit code; -9 if it was killed, with all processes that it began.
        """
        to_server, of_server = self._server.stdin, self._server.stdout
        assert to_server is not None
        assert of_server is not None
        to_server.write(json.dumps([function, arguments]).encode() + b"\n")
        self._running = int(of_server.readline())
        is_over, _, _ = select.select([of_server], [], [], seconds)
        if not is_over:
            self._kill(self._running)
        code, self._running = int(of_server.readline()), None
        return code

    def _kill(self, process: int) -> None:
        # It may have ended just now.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)


def _serve() -> None:
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        function, arguments = json.loads(line)
        process = os.fork()
        if process == 0:
            os.setpgid(0, 0)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            module, name = function.split(":")
            sys.exit(getattr(importlib.import_module(module), name)(*arguments))
        # Both set it, for either may be first.
        os.setpgid(process, process)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
