"""An evolution on this machine: its run, its status, its best model and its report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfemo.errors import RunFailed, require, translated_errors
from selfemo.model import Model
from selfemo_api.evolution import EmotionEvolution
from selfemo_api.local_runs import STATE_FILE
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_api.status import ConditionType, EvolutionStatus, Phase
from selfemo_operator.cli.run_options import RunRequest, request_of, volume_folder
from selfemo_operator.cli.runs.target import Target
from selfemo_operator.cli.watch import LocalSource
from selfemo_operator.local.runner import ProcessRunner, run_local
from selfemo_operator.local.state import LocalState


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment."""

    status: EvolutionStatus
    """What has happened so far."""
    done: float | None
    """The finished part of ``total``; None before the stage has logged progress."""
    total: float
    """The whole work of the current stage, in the stage's own unit, for example steps."""
    metrics: str
    """The last figures of the current stage as text, for example ``loss 0.42``."""
    active: bool
    """Whether a process runs the evolution. False: the same run continues it."""

    @property
    def generation(self) -> int:
        """The number of the generation in progress, or of the last one."""
        return self.status.generation

    @property
    def stage(self) -> Stage | None:
        """The stage in progress, or the last one."""
        return self.status.stage


class Evolution:
    """An evolution, whose stages run as processes of this machine. See :meth:`from_file`.

    Parameters
    ----------
    request
        The evolution, its data volumes and its state folder.
    file
        The YAML file.
    state
        The folder with the states of all evolutions.
    """

    def __init__(self, request: RunRequest, file: Path, state: Path) -> None:
        self._request = request
        self._file = file
        self._state = state

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        set: Mapping[str, Any] | None = None,
        data: Mapping[str, str | Path] | None = None,
        state: str | Path = ".selfemo",
    ) -> Evolution:
        """Return the evolution of a YAML file, after it is validated.

        Parameters
        ----------
        path
            The YAML file, with one document.
        set
            Values that replace those of the file, by dotted path below ``spec``, as `selfemo run
            --set`.
        data
            The folder of each data volume, by the volume's name, as `selfemo run --data`.
        state
            The folder with the states of all evolutions, as `selfemo run --state`.

        Raises
        ------
        BadInput
            If the file is not valid. The message has all problems, each with its field and line.
        """
        file, folder = Path(path).expanduser(), Path(state).absolute()
        changes = {name.removeprefix("spec."): value for name, value in (set or {}).items()}
        with translated_errors():
            volumes = {
                name: volume_folder(Path(place), f"data[{name!r}]")
                for name, place in (data or {}).items()
            }
            return cls(request_of(file, changes, volumes, folder), file.absolute(), folder)

    @property
    def name(self) -> str:
        """The name of the evolution."""
        return self._request.evolution.metadata.name

    @property
    def spec(self) -> EvolutionSpec:
        """The spec of the file, with the changes. ``status.current.spec`` has the recipe's values,
        too.
        """
        return self._request.evolution.spec

    @property
    def state_folder(self) -> Path:
        """The folder with the status and the logs of the stages."""
        return self._request.state

    @property
    def status(self) -> EvolutionStatus:
        """What has happened so far. It is empty before the first run.

        Raises
        ------
        BadInput
            If the state was written by another version, or is damaged.
        """
        return self._stored().status

    @property
    def best(self) -> Model | None:
        """The best model so far; None before the baseline was evaluated.

        Its generation and F1 are in ``status.best``.
        """
        return None if self.status.best is None else self.model()

    def model(self, generation: int | None = None) -> Model:
        """Return the model of a generation.

        Parameters
        ----------
        generation
            The number of the generation. None: the best one.
        """
        return Model(self._file, generation=generation, state=self._state, data=self._request.data)

    def run(self, on_change: Callable[[Snapshot], None] | None = None) -> EvolutionStatus:
        """Run the evolution to its end, or continue a run that was interrupted.

        The planner and the stages are those of `selfemo run`. An exception, such as that of Ctrl-C,
        ends the stage, which saves its work.

        Parameters
        ----------
        on_change
            Is called with a snapshot at each change of the status or of the stage's progress.

        Returns
        -------
        EvolutionStatus
            The last status. The run succeeded, or ``suspend`` is set.

        Raises
        ------
        MissingExtra
            If the libraries of the jobs are not installed.
        RunFailed
            If the run ended without success.
        BadInput
            If a field was edited that cannot be changed during a run.
        Unavailable
            If another process runs the evolution.
        """
        require("selfemo.Evolution.run", "jobs")
        with translated_errors():
            status = self._run_to_end(on_change or (lambda _: None)).status
        if status.finished and status.phase is not Phase.SUCCEEDED:
            condition = status.condition(ConditionType.SUCCEEDED)
            reason = f"{condition.reason}: {condition.message}" if condition else status.phase
            raise RunFailed(reason, status)
        return status

    def watch(self, poll_seconds: float = 1.0) -> Iterator[Snapshot]:
        """Yield a snapshot now and at each change, until the run ends.

        It only reads, so that the run may be in another thread or process. It waits for a run that
        has not begun.

        Parameters
        ----------
        poll_seconds
            Seconds between two looks.

        Raises
        ------
        BadInput
            If the state was written by another version, or is damaged.
        """
        read = self._snapshots()
        previous = None
        while True:
            snapshot = read()
            if snapshot != previous:
                yield snapshot
            if snapshot.status.finished:
                return
            previous = snapshot
            time.sleep(poll_seconds)

    def report(self, path: str | Path = "report.html") -> Path:
        """Write the report of the run so far, and return the path of the page.

        Parameters
        ----------
        path
            The HTML file to write.

        Raises
        ------
        MissingExtra
            If the libraries of the report are not installed.
        BadInput
            If nothing has finished yet, or the report cannot be written.
        """
        require("selfemo.Evolution.report", "report")
        from selfemo_operator.cli.report import write_report

        with translated_errors():
            return write_report(self._request, Path(path).expanduser())

    def __repr__(self) -> str:
        """Return the name and the phase."""
        return f"<Evolution {self.name}: {self.status.phase.value}>"

    def _run_to_end(self, on_change: Callable[[Snapshot], None]) -> EmotionEvolution:
        """Run the evolution, and return it with its last status."""
        state = LocalState(self._request.state)
        try:
            evolution = state.load(self._request.evolution, self._request.uid)
            runner = ProcessRunner(state, self._request.data)
            read, previous = self._snapshots(), None

            def on_pass(*_: object) -> None:
                nonlocal previous
                snapshot = read()
                if snapshot != previous:
                    previous = snapshot
                    on_change(snapshot)

            try:
                return run_local(evolution, runner, on_pass)
            finally:
                runner.close()
        finally:
            state.close()

    def _snapshots(self) -> Callable[[], Snapshot]:
        """Return a function that reads the run as it is."""
        source = LocalSource(self._target())

        def read() -> Snapshot:
            if not self._has_begun():
                return Snapshot(EvolutionStatus(), None, 1.0, "", active=False)
            with translated_errors():
                evolution, progress = source.read()
            active = not progress.note and not evolution.status.finished
            return Snapshot(
                evolution.status, progress.done, progress.total, progress.metrics, active
            )

        return read

    def _stored(self) -> EmotionEvolution:
        """Return the stored evolution, or the one of the file before the first run."""
        if not self._has_begun():
            return self._request.evolution
        with translated_errors():
            return self._target().read()

    def _has_begun(self) -> bool:
        return (self._request.state / STATE_FILE).is_file()

    def _target(self) -> Target:
        return Target(self._request.state, self.name, "`Evolution.run`")
