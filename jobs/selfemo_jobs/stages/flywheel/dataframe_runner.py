"""Selects where the data frame operations run: in this process or on a Ray cluster."""

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
from selfemo_api.text.extras import add_extra
from selfemo_jobs.errors import BadInput, Unavailable

#: Number of rows that operators exchange at once. Candidates are wide (lists of tokens, text). With
#: Daft's default of 131,072 every operator would hold hundreds of megabytes.
MORSEL_ROWS = 16_384
#: Number of files that one process reads at once, for the same reason.
PARALLEL_FILES = 2
#: Seconds that a cluster's head may take to accept a connection. A new network route needs some.
CONNECT_TIMEOUT_SECONDS = 10.0


def start_runner(spec: FlywheelSpec) -> None:
    """Set Daft's runner.

    A process keeps its runner until it ends. A second call must select the same one.

    Parameters
    ----------
    spec
        The field ``spec.flywheel``.

    Raises
    ------
    BadInput
        If the runner is Ray and Ray is not installed.
    Unavailable
        If the Ray cluster does not answer.
    """
    runner = "native" if spec.runner is FlywheelRunner.IN_PROCESS else "ray"
    try:
        if runner == "native":
            daft.set_runner_native()
        else:
            _start_ray(spec.ray_address)
    except DaftCoreException:  # this process has a runner already
        if daft.get_or_create_runner().name != runner:
            raise
    daft.set_execution_config(
        default_morsel_size=MORSEL_ROWS,
        scantask_max_parallel=PARALLEL_FILES,
        shuffle_aggregation_default_partitions=_partitions(),
    )


def materialize(frame: DataFrame) -> DataFrame:
    """Return a data frame of small rows, computed and held in memory.

    On Ray it gets at most one partition for each core. A join or a window makes several partitions
    of each. Ten steps later, thousands of tasks would each move a few rows.

    Parameters
    ----------
    frame
        The data frame to compute.

    Returns
    -------
    DataFrame
        The same rows.
    """
    if daft.get_or_create_runner().name == "ray":
        frame = frame.into_partitions(_partitions())
    return frame.collect()


def _partitions() -> int:
    """Return the number of cores of the cluster, or of this machine."""
    if daft.get_or_create_runner().name != "ray":
        return os.cpu_count() or 1
    ray = importlib.import_module("ray")  # an optional package
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _start_ray(address: str | None) -> None:
    if importlib.util.find_spec("ray") is None:
        raise BadInput(
            f"`overrides.flywheel.runner: Ray` needs the package `ray`: {add_extra('ray')}, "
            "or use `InProcess`"
        )
    _check_connection(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        daft.set_runner_ray(address=address, noop_if_initialized=True)
    except ConnectionError as error:
        raise Unavailable(f"the Ray cluster at {address} does not answer: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # Ray's own would end us with another exit code


def _check_connection(address: str | None) -> None:
    """Fail at once if no process listens at the address: Ray itself tries for over 5 minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # "auto", "local" or nothing: Ray finds its cluster itself
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_SECONDS).close()
    except OSError as error:
        raise Unavailable(f"the Ray cluster at {address} does not answer: {error}") from error
