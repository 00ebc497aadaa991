"""``python -m tests.support.cluster up|down|status|build``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.cluster import ClusterError, binaries, ensure, given, kind, local, state_folders
from tests.support.cluster.locks import locked_alone
from tests.support.cluster.state import load


def main() -> int:
    """Run one command; report an error in one line."""
    options = _parser().parse_args()
    commands: dict[str, Callable[[argparse.Namespace], None]] = {
        "up": _up,
        "down": _down,
        "status": _status,
        "build": _build,
    }
    try:
        commands[options.command](options)
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.support.cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--state",
        type=Path,
        help="state folder (default: build/cluster; without nodes: build/control-plane)",
    )
    up = commands.add_parser(
        "up", parents=[common], help="start a cluster, or the parts that have ended"
    )
    up.add_argument(
        "--control-plane-only", action="store_true", help="a control plane without nodes"
    )
    up.add_argument("--kubeconfig", type=Path, default=given(), help="use this existing cluster")
    down = commands.add_parser(
        "down", parents=[common], help="take the cluster down, and remove its data"
    )
    down.add_argument("--force", action="store_true", help="even if a test run uses it")
    commands.add_parser("status", parents=[common], help="print the state of the processes")
    build = commands.add_parser("build", help="build programs into the cache")
    build.add_argument("programs", nargs="*", help="names of programs (default: all)")
    return parser


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _up(options: argparse.Namespace) -> None:
    start = time.monotonic()
    cluster = ensure(options.control_plane_only, options.state, options.kubeconfig, _print)
    what = "with a node" if cluster.nodes else "control plane only"
    seconds = time.monotonic() - start
    _print(f"{cluster.kind} cluster, {what}: up after {seconds:.1f} s")
    if cluster.s3:
        _print(f"S3: {cluster.s3.endpoint} bucket {cluster.s3.bucket} (keys in cluster.json)")
    _print(f"export KUBECONFIG={cluster.kubeconfig}")


def _down(options: argparse.Namespace) -> None:
    start = time.monotonic()
    stopped = [folder for folder in _folders(options) if _down_local(folder, options.force)]
    if not stopped and kind.works() and kind.down(_folders(options)[0]):
        stopped = _folders(options)
    seconds = time.monotonic() - start
    _print(f"down after {seconds:.1f} s" if stopped else "no cluster was running")


def _down_local(folder: Path, force: bool) -> bool:
    state = load(folder)
    if state is None:
        return False
    with locked_alone(state.users) as alone:
        if not alone and not force:
            raise ClusterError(f"a test run uses {folder}: --force takes it down anyway")
        return local.down(folder)


def _status(options: argparse.Namespace) -> None:
    for folder in _folders(options):
        _print(f"{folder}:")
        for line in local.status(folder):
            _print(f"  {line}")
    if kind.works() and kind.exists():
        _print(f"kind: {kind.NAME}")


def _folders(options: argparse.Namespace) -> list[Path]:
    """Return the named folder, or all default folders."""
    named = [options.state] if options.state else state_folders()
    return list(dict.fromkeys(folder.resolve() for folder in named))


def _build(options: argparse.Namespace) -> None:
    if options.programs:
        binaries.programs(options.programs, _print)
    else:
        binaries.build_all(_print)


if __name__ == "__main__":
    sys.exit(main())
