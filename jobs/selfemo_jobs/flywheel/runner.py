"""Where the dataframe program runs: in this process, or on a Ray cluster."""

from __future__ import annotations

import importlib.util

import daft
from daft.exceptions import DaftCoreException

from selfemo_api.spec import FlywheelRunner, FlywheelSpec
from selfemo_jobs.errors import BadInput, Unavailable

#: Rows in flight between operators. Candidates are wide (token lists, text): Daft's default of
#: 131,072 would hold hundreds of megabytes at every step.
MORSEL_ROWS = 16_384
#: Files read at once by one process, for the same reason.
SCANS = 2


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
    daft.set_execution_config(default_morsel_size=MORSEL_ROWS, scantask_max_parallel=SCANS)


def _start_ray(address: str | None) -> None:
    if importlib.util.find_spec("ray") is None:
        raise BadInput(
            "`flywheel.runner: Ray` needs the package `ray`: install selfemo[ray], "
            "or use `InProcess`"
        )
    try:
        daft.set_runner_ray(address=address, noop_if_initialized=True)
    except ConnectionError as error:
        raise Unavailable(f"the Ray cluster at {address} does not answer: {error}") from error
