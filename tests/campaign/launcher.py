"""Starts operators quickly: the modules are imported once, and each operator is a fork.

It reads commands as JSON lines: `{"do": "start", "id": …, "argv": […], "env": {…}, "log": …}`. It
writes `{"id": …, "pid": …}` for each start and `{"id": …, "code": …}` for each end. All operators
are killed when its input ends.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import runpy
import select
import signal
import sys
from typing import Any

from kubernetes.config import kube_config

from tests.campaign.defects import install

Json = dict[str, Any]


def main() -> None:
    """Serve commands until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--defect")
    arguments = parser.parse_args()
    if arguments.defect:
        install(arguments.defect)

    import selfemo_operator.__main__
    import selfemo_operator.controller.process  # noqa: F401

    running: dict[int, str] = {}
    _write({"ready": True})
    pending = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.03)
        if ready:
            chunk = os.read(0, 65536)
            if not chunk:
                break
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                _start(json.loads(line), running)
        _reap(running)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _start(command: Json, running: dict[int, str]) -> None:
    pid = os.fork()
    if pid == 0:
        _become_operator(command)
    running[pid] = command["id"]
    _write({"id": command["id"], "pid": pid})


def _become_operator(command: Json) -> None:
    """Run the operator in this forked process; never return."""
    code = 70
    try:
        os.setsid()
        log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(command["env"])
        if command.get("exec"):  # an environment that counts only from the start of a process
            program = [sys.executable, "-m", "selfemo_operator", *command["argv"]]
            os.execve(sys.executable, program, dict(os.environ))
        # the client reads the variable when it is imported
        kube_config.KUBE_CONFIG_DEFAULT_LOCATION = command["env"]["KUBECONFIG"]
        random.seed()
        sys.argv = ["selfemo_operator", *command["argv"]]
        sys.modules.pop("selfemo_operator.__main__", None)
        runpy.run_module("selfemo_operator", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001 - as the interpreter reports it
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _reap(running: dict[int, str]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        identity = running.pop(pid, "")
        _write({"id": identity, "code": os.waitstatus_to_exitcode(status)})


def _write(document: Json) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
