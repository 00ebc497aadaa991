"""Where the dataframe program runs: in this process, or on a Ray cluster."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import socket

import daft
from daft import DataFrame
from daft.exceptions import DaftCoreException

from selfemo_api.spec import FlywheelRunner, FlywheelSpec
from selfemo_jobs.errors import BadInput, Unavailable

#: Rows in flight between operators. Candidates are wide (token lists, text): Daft's default of
#: 131,072 would hold hundreds of megabytes at every step.
MORSEL_ROWS = 16_384
#: Files read at once by one process, for the same reason.
SCANS = 2
#: How long a cluster's head may take to accept a connection; a cold network route needs a few.
PROBE_SECONDS = 10.0


def start_runner(spec: FlywheelSpec) -> None:
    """Choose Daft's runner. A process has one for its life: a second call must ask for the same.

    Raises
    ------
    BadInput
        If Ray is asked for and not installed.
    Unavailable
        If the Ray cluster does not answer.
    """
    wanted = "native" if spec.runner is FlywheelRunner.IN_PROCESS else "ray"
    try:
        if wanted == "native":
            daft.set_runner_native()
        else:
            _start_ray(spec.ray_address)
    except DaftCoreException:  # there is one already
        if daft.get_or_create_runner().name != wanted:
            raise
    daft.set_execution_config(
        default_morsel_size=MORSEL_ROWS,
        scantask_max_parallel=SCANS,
        shuffle_aggregation_default_partitions=_partitions(),
    )


def materialize(frame: DataFrame) -> DataFrame:
    """Return a light frame computed and held, in at most as many partitions as work side by side.

    On Ray a join or a window leaves several partitions for each it was given: without this, ten
    steps later thousands of tasks would each move a few rows.
    """
    if daft.get_or_create_runner().name == "ray":
        frame = frame.into_partitions(_partitions())
    return frame.collect()


def _partitions() -> int:
    """Return one partition for each core of the cluster, or of this machine."""
    if daft.get_or_create_runner().name != "ray":
        return os.cpu_count() or 1
    ray = importlib.import_module("ray")  # an optional package
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _start_ray(address: str | None) -> None:
    if importlib.util.find_spec("ray") is None:
        raise BadInput(
            "`flywheel.runner: Ray` needs the package `ray`: install selfemo[ray], "
            "or use `InProcess`"
        )
    _probe(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        daft.set_runner_ray(address=address, noop_if_initialized=True)
    except ConnectionError as error:
        raise Unavailable(f"the Ray cluster at {address} does not answer: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray's own would end us with another exit code


def _probe(address: str | None) -> None:
    """Say at once that nobody listens: Ray itself tries for over five minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # "auto", "local" or nothing: Ray finds its cluster itself
    try:
        socket.create_connection((host, int(port)), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise Unavailable(f"the Ray cluster at {address} does not answer: {error}") from error
