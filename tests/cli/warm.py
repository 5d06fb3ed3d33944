"""Processes for blurkit's commands, forked from one that has imported everything already.

Imports take longer than most commands of the tests: torch 3 s, what an optimiser's first step
imports 3 s, all else 1.5 s. Each command still is a process of its own with the arguments,
environment, folder and standard streams of its caller, bin/blurkit; only what torch reads from the
environment while it is imported has no effect. `-m MODULE` and `-c CODE` are run as by Python.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from functools import cache
from pathlib import Path

import torch

import blurkit
from blurkit.cli.app import main

ROOT = Path(__file__).parents[2]


@cache
def address() -> str:
    """The socket of this process's server, which ends with this process."""
    folder = tempfile.TemporaryDirectory()
    path = str(Path(folder.name) / "server")
    command = [sys.executable, "-m", "tests.cli.warm", path]
    pipe = subprocess.PIPE
    server = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, start_new_session=True)
    assert server.stdin is not None and server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    atexit.register(folder.cleanup)
    atexit.register(server.stdin.close)
    return path


def serve(path: str) -> None:
    """Run each command that asks for it in a fork, until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            caller, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                answer(caller)
            caller.close()


def answer(caller: socket.socket) -> None:
    """Run the command of one caller in a fork and send its process id, then its exit status.

    A caller that is killed closes its connection, and its command is killed with it.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(caller, 9, 3)
    with caller.makefile("rb") as lines:
        call = json.loads(lines.read(int(size)))
    child = os.fork()
    if child == 0:
        caller.close()
        command(*call, streams)
    for stream in streams:
        os.close(stream)
    caller.sendall(b"%09d" % child)
    threading.Thread(target=end_with, args=(caller, child), daemon=True).start()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        caller.sendall(b"%d" % status)
    os._exit(0)


def end_with(caller: socket.socket, child: int) -> None:
    """Kill the process `child` when its caller is gone."""
    with contextlib.suppress(OSError):
        caller.recv(1)
        os.kill(child, signal.SIGKILL)


def command(
    arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]
) -> None:
    """`blurkit ARGUMENTS`, or `python ARGUMENTS` of a module or code, to its end."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    kind = arguments[0] if arguments else ""
    sys.argv = arguments[1:] if kind in ("-m", "-c") else ["blurkit", *arguments]
    status = 0
    try:
        if kind == "-m":
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            exec(arguments[1], {"__name__": "__main__"})
        else:
            main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # as Python ends, without freeing torch
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)


def import_package() -> None:
    """Import all of blurkit, and what it imports only when it needs that."""
    for module in pkgutil.walk_packages(blurkit.__path__, "blurkit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("torch._dynamo", "typer._adapters", "rich.table", "multiprocessing.synchronize"):
        with contextlib.suppress(ModuleNotFoundError):  # older versions lack some
            importlib.import_module(name)


if __name__ == "__main__":
    import_package()
    torch.set_num_threads(1)
    gc.freeze()
    serve(sys.argv[1])
