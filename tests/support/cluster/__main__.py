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
    """Do one command; say what went wrong in one line."""
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
        help="its folder (default build/cluster; for a control plane alone, build/control-plane)",
    )
    up = commands.add_parser("up", parents=[common], help="bring one up, or heal it")
    up.add_argument(
        "--control-plane-only", action="store_true", help="the API server and no node: seconds"
    )
    up.add_argument("--kubeconfig", type=Path, default=given(), help="use this cluster as it is")
    down = commands.add_parser("down", parents=[common], help="take it down, with its data")
    down.add_argument("--force", action="store_true", help="even where a test run uses it")
    commands.add_parser("status", parents=[common], help="say what runs")
    build = commands.add_parser("build", help="build programs into the cache")
    build.add_argument("programs", nargs="*", help="their names (default all)")
    return parser


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _up(options: argparse.Namespace) -> None:
    began = time.monotonic()
    cluster = ensure(options.control_plane_only, options.state, options.kubeconfig, _say)
    what = "with a node" if cluster.nodes else "control plane only"
    seconds = time.monotonic() - began
    _say(f"{cluster.kind} cluster, {what}: up after {seconds:.1f} s")
    if cluster.s3:
        _say(f"S3: {cluster.s3.endpoint} bucket {cluster.s3.bucket} (keys in cluster.json)")
    _say(f"export KUBECONFIG={cluster.kubeconfig}")


def _down(options: argparse.Namespace) -> None:
    began = time.monotonic()
    there = [folder for folder in _folders(options) if _down_local(folder, options.force)]
    if not there and kind.works() and kind.down(_folders(options)[0]):
        there = _folders(options)
    seconds = time.monotonic() - began
    _say(f"down after {seconds:.1f} s" if there else "nothing was up")


def _down_local(folder: Path, force: bool) -> bool:
    state = load(folder)
    if state is None:
        return False
    with locked_alone(state.users) as alone:
        if not alone and not force:
            raise ClusterError(f"a test run uses {folder}: --force takes it down all the same")
        return local.down(folder)


def _status(options: argparse.Namespace) -> None:
    for folder in _folders(options):
        _say(f"{folder}:")
        for line in local.status(folder):
            _say(f"  {line}")
    if kind.works() and kind.exists():
        _say(f"kind: {kind.NAME}")


def _folders(options: argparse.Namespace) -> list[Path]:
    """Return the folder that is named, or those there may be a cluster in."""
    named = [options.state] if options.state else state_folders()
    return list(dict.fromkeys(folder.resolve() for folder in named))


def _build(options: argparse.Namespace) -> None:
    if options.programs:
        binaries.programs(options.programs, _say)
    else:
        binaries.build_all(_say)


if __name__ == "__main__":
    sys.exit(main())
