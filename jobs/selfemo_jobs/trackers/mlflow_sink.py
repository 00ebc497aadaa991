"""MLflow: one run of an experiment, by MLflow's client. The package ``mlflow-skinny`` is enough.

``MLFLOW_TRACKING_URI`` is required: MLflow's default is a database in the current folder, which is
lost with a pod. ``MLFLOW_EXPERIMENT_NAME`` names the experiment. All other variables of MLflow's
client apply too, for example ``MLFLOW_TRACKING_TOKEN``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from selfemo_jobs.trackers.points import TrackedGeneration, TrackedPoint, TrackedRun
from selfemo_jobs.trackers.sink import SinkFiles, TrackerError

if TYPE_CHECKING:
    from mlflow.entities import Run

#: The experiment, if `MLFLOW_EXPERIMENT_NAME` is not set.
EXPERIMENT = "selfemo"
#: The tag by which a run is found again.
ID_TAG = "selfemo.id"
#: The largest number of metrics, and of params or tags, in one request.
_METRICS, _PARAMS = 1000, 100
#: The largest length of a param and of a tag.
_PARAM_LENGTH, _TAG_LENGTH = 6000, 5000

T = TypeVar("T")


def make_sink() -> MLflowSink:
    """Return the sink of MLflow. Raises TrackerError if its address is not set."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise TrackerError(
            "MLFLOW_TRACKING_URI is not set: set it to the address of an MLflow server, or to a "
            "folder, as in file:///data/mlruns"
        )
    if urlsplit(uri).scheme in ("", "file"):
        # MLflow 3 refuses folders unless this is set. It still reads and writes them.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # The client's own retries must end before the time of the worker is over.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    return MLflowSink()


class MLflowSink:
    """Writes with ``MlflowClient``. A tag for each generation states what the run has."""

    def open(self, run: TrackedRun, files: SinkFiles) -> None:
        """Find or create the run. The parameters are those of the protocol."""
        from mlflow import MlflowClient

        self._client = MlflowClient()
        self._files = files
        stored = self._find_or_create(run)
        self._run_id = stored.info.run_id
        self._tags = dict(stored.data.tags)
        self._client.update_run(self._run_id, status="RUNNING")
        self._write_settings(run, dict(stored.data.params))

    def log(self, generation: TrackedGeneration) -> int:
        """Write the points that the run does not have. The parameters are the protocol's."""
        from mlflow.entities import Metric

        tag = f"selfemo.generation.{generation.generation:03d}"
        state = self._tags.get(tag)
        if state == "written":
            return 0
        points: Sequence[TrackedPoint] = generation.points
        if state == "writing":  # an attempt was interrupted: some of the points may be there
            points = self._missing(points)
        self._client.set_tag(self._run_id, tag, "writing")
        timestamp = round(generation.time * 1000)
        for chunk in _chunks(points, _METRICS):
            metrics = [Metric(p.name, p.value, timestamp, p.step) for p in chunk]
            self._client.log_batch(self._run_id, metrics=metrics)
        self._client.set_tag(self._run_id, tag, "written")
        return len(points)

    def finish(self) -> None:
        """Store the report as an artifact, and end the run until the next generation."""
        if self._files.report is not None:
            self._client.log_artifact(self._run_id, str(self._files.report))
        self._client.set_terminated(self._run_id, "FINISHED")

    def _find_or_create(self, run: TrackedRun) -> Run:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = (
            experiment.experiment_id if experiment else self._client.create_experiment(name)
        )
        runs = self._client.search_runs(
            [experiment_id], filter_string=f"tags.`{ID_TAG}` = '{run.id}'", max_results=1
        )
        if runs:
            return runs[0]
        return self._client.create_run(
            experiment_id,
            start_time=round(run.generations[0].time * 1000),
            run_name=run.id,
            tags={ID_TAG: run.id},
        )

    def _write_settings(self, run: TrackedRun, stored: dict[str, str]) -> None:
        """Write params and tags. A param cannot be changed, so later edits become a tag."""
        from mlflow.entities import Param, RunTag

        settings = {n: _text(v)[:_PARAM_LENGTH] for n, v in run.settings.items() if v != ""}
        new = [Param(name, value) for name, value in settings.items() if name not in stored]
        edits = [f"{n}={v}" for n, v in settings.items() if stored.get(n, v) != v]
        tags = {n: v for n, v in run.tags.items() if v}
        if edits:
            tags["selfemo.edits"] = "\n".join(edits)
        entries = [RunTag(name, value[:_TAG_LENGTH]) for name, value in tags.items()]
        for chunk in _chunks(new, _PARAMS):
            self._client.log_batch(self._run_id, params=chunk)
        self._client.log_batch(self._run_id, tags=entries)

    def _missing(self, points: Sequence[TrackedPoint]) -> list[TrackedPoint]:
        """Return the points that the run does not have."""
        stored = {
            (name, metric.step)
            for name in {point.name for point in points}
            for metric in self._client.get_metric_history(self._run_id, name)
        }
        return [point for point in points if (point.name, point.step) not in stored]


def _text(value: object) -> str:
    """Return the text of a setting, as YAML and JSON write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _chunks(values: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(values), size):
        yield list(values[start : start + size])
