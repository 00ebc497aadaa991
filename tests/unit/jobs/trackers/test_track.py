"""Each tracker gets the whole run, each point once; none of them can end the run."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.support import recorded, wandb_file
from tests.support.connections import ConnectionLog
from tests.unit.jobs.trackers import readers

from selfemo_api.spec import Tracker
from selfemo_jobs.errors import Terminated
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.trackers import missing_libraries, sink, track
from selfemo_jobs.trackers.track import read_run, track_generation

Publish = Callable[..., StageContext]
LAST = 3


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the tools' files, each set by the tool's own variable."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "WANDB_", "TRACKIO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{folder}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.setenv("TRACKIO_DIR", f"{folder}/trackio")
    return folder


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("tracker", Tracker)
def test_each_point_of_a_run_is_there_once(
    tracker: Tracker, publish: Publish, tools: Path, tmp_path: Path, connections: ConnectionLog
) -> None:
    for generation in (0, 1, 1, LAST):  # generation 1 is published twice, and 2 was missed
        result = track_generation(publish(generation, tracker))[tracker]
        assert result.error is None
    context = publish(LAST, tracker)
    run = read_run(context)
    points = readers.read_points(tracker, tools, tmp_path / "storage")
    expected = readers.expected_points(run)
    assert points.keys() == expected.keys()
    for key, values in points.items():
        assert values == pytest.approx(expected[key], rel=1e-6), key  # TensorBoard has float32
    assert ("train-steps/loss", 3) in points
    assert ("evaluate/demo-dev/f1/joy", LAST) in points
    assert connections.read() == []


@pytest.mark.parametrize("tracker", [t for t in Tracker if t is not Tracker.WANDB])
def test_nothing_is_written_twice(tracker: Tracker, publish: Publish, tools: Path) -> None:
    context = publish(1, tracker)
    first = track_generation(context)[tracker].points
    assert first == sum(len(g.points) for g in read_run(context).generations)
    second = track_generation(context)[tracker].points
    # TensorBoard's files are made again, and the storage keeps the first ones
    assert second == (first if tracker is Tracker.TENSORBOARD else 0)


def test_mlflow_has_settings_tags_and_the_report(publish: Publish, tools: Path) -> None:
    track_generation(publish(1, Tracker.MLFLOW))
    stopping = {"maxGenerations": 9, "goal": 0.5, "patience": 5}
    context = publish(2, Tracker.MLFLOW, stopping=stopping)
    track_generation(context)
    run, client = readers.mlflow_run(), readers.mlflow_client()
    settings = read_run(context).settings
    assert run.data.params.keys() == {name for name, value in settings.items() if value != ""}
    assert run.data.params["training.optimizer.learningRate"] == "2e-05"
    assert run.data.params["stopping.maxGenerations"] == "5"
    assert "stopping.maxGenerations=9" in run.data.tags["selfemo.edits"].splitlines()
    assert run.data.tags["selfemo.recipe"] == "paper-v1"
    assert "stopping.goal=0.42" in run.data.tags["selfemo.changes"].splitlines()
    assert run.info.run_name == read_run(context).id
    assert run.info.status == "FINISHED"
    path = client.download_artifacts(run.info.run_id, "report.html")
    assert Path(path).read_text() == "<title>the report</title>"


def test_mlflow_completes_a_generation_that_was_interrupted(
    publish: Publish, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from selfemo_jobs.trackers import mlflow_sink
    from selfemo_jobs.trackers.worker import write_run

    context = publish(1, Tracker.MLFLOW)
    run = read_run(context)
    files = sink.SinkFiles(tools, None)
    monkeypatch.setattr(mlflow_sink, "_METRICS", 10)
    batches, log_batch = [], MlflowClient.log_batch

    def fail_at_the_fifth(self: object, *args: object, **kwargs: object) -> None:
        batches.append("metrics" in kwargs)
        if sum(batches) == 5:
            raise OSError("killed")
        log_batch(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", fail_at_the_fifth)
    with pytest.raises(OSError, match="killed"):
        write_run(mlflow_sink.make_sink(), run, files)
    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    assert 0 < write_run(mlflow_sink.make_sink(), run, files) < len(readers.expected_points(run))
    assert readers.read_points(Tracker.MLFLOW, tools, tools) == readers.expected_points(run)


def test_wandb_has_settings_axes_and_the_report(publish: Publish, tools: Path) -> None:
    context = publish(1, Tracker.WANDB)
    track_generation(context)
    path = readers.wandb_run(tools)
    config = wandb_file.config(path)
    assert config["training.optimizer.learningRate"] == 2e-05
    assert config["selfemo.recipe"] == "paper-v1"
    axes = wandb_file.step_metrics(path)
    assert axes["train-steps/*"] == "trainStep"
    assert axes["evaluate/*"] == "generation"
    rows = wandb_file.history(path)
    assert [row["_step"] for row in rows] == list(range(5))  # generation 0, three steps, 1
    assert "report.html" in wandb_file.files(path)
    assert (path.parent / "files/report.html").read_text() == "<title>the report</title>"
    assert not (path.parent / "files/report.html").is_symlink()


def test_trackio_and_tensorboard_have_the_settings(
    publish: Publish, tools: Path, tmp_path: Path
) -> None:
    context = publish(1, Tracker.TRACKIO, Tracker.TENSORBOARD)
    track_generation(context)
    run = readers.trackio_run()
    assert run["name"] == read_run(context).id
    assert run["config"]["training.optimizer.learningRate"] == 2e-05
    events = readers.tensorboard_events(tmp_path / "storage")
    (text,) = events.Tensors("settings")
    assert b"| training.optimizer.learningRate | 2e-05 |" in text.tensor_proto.string_val[0]


def test_tensorboard_takes_a_folder(
    publish: Publish, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFEMO_TENSORBOARD_DIR", str(tools / "events"))
    context = publish(1, Tracker.TENSORBOARD)
    assert track_generation(context)[Tracker.TENSORBOARD].points > 0
    assert track_generation(context)[Tracker.TENSORBOARD].points == 0
    names = {p.name for p in (tools / "events" / read_run(context).id).iterdir()}
    assert names == {f"events.out.tfevents.000000000{n}.selfemo" for n in (0, 1)}
    assert not list((tmp_path / "storage").glob("*/*/tensorboard"))


def test_a_server_that_is_down_gets_everything_later(
    publish: Publish,
    tools: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    works = os.environ["MLFLOW_TRACKING_URI"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tom:hunter2-secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-of-mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with caplog.at_level(logging.INFO):
        results = track_generation(publish(1, Tracker.MLFLOW, Tracker.TENSORBOARD))
    error = results[Tracker.MLFLOW].error
    assert error is not None
    assert "127.0.0.1" in error
    assert results[Tracker.TENSORBOARD].error is None  # one failure does not stop the others
    assert f"MLflow: {error}; the run goes on" in caplog.messages
    assert "hunter2" not in caplog.text + error
    assert "token-of-mlflow" not in caplog.text + error
    monkeypatch.setenv("MLFLOW_TRACKING_URI", works)
    context = publish(2, Tracker.MLFLOW)
    track_generation(context)
    points = readers.read_points(Tracker.MLFLOW, tools, tools)
    assert points == readers.expected_points(read_run(context))


def children() -> set[psutil.Process]:
    """Return the processes that this one started, servers of other tests included."""
    return set(psutil.Process().children(recursive=True))


def test_a_server_that_never_answers_is_given_up(
    publish: Publish, tools: Path, silent_server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent_server}")
    monkeypatch.setattr(track, "WORKER_SECONDS", 5.0)
    others = children()
    result = track_generation(publish(1, Tracker.MLFLOW))[Tracker.MLFLOW]
    assert result.error == "it did not answer within 5 seconds"
    assert children() <= others


def test_sigterm_ends_the_worker(
    publish: Publish, tools: Path, silent_server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminate(*_: object) -> None:
        raise Terminated("ended by SIGTERM")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent_server}")
    context = publish(1, Tracker.MLFLOW)
    others = children()
    earlier = signal.signal(signal.SIGALRM, terminate)
    signal.setitimer(signal.ITIMER_REAL, 4.0)
    try:
        with pytest.raises(Terminated):
            track_generation(context)
    finally:
        signal.signal(signal.SIGALRM, earlier)
    assert children() <= others


def test_a_worker_that_dies_is_reported(
    publish: Publish, tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "broken"
    (site / "mlflow").mkdir(parents=True)
    (site / "mlflow/__init__.py").write_text("import os; os._exit(9)")
    monkeypatch.setenv("PYTHONPATH", str(site))
    result = track_generation(publish(0, Tracker.MLFLOW))[Tracker.MLFLOW]
    assert result.error == "its process ended with code 9"


def test_an_address_is_required(
    publish: Publish, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    error = track_generation(publish(0, Tracker.MLFLOW))[Tracker.MLFLOW].error
    assert error is not None
    assert error.startswith("MLFLOW_TRACKING_URI is not set: set it to ")


@pytest.mark.parametrize("tracker", Tracker)
def test_a_missing_library_names_its_extra(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert missing_libraries(list(Tracker)) == {}
    extra = tracker.value.lower()
    message = missing_libraries([tracker], lambda module: module != extra)[tracker]
    assert message.startswith(f"the library of {tracker.value} is not installed: ")
    assert f"--extra {extra}`" in message
    monkeypatch.setattr(sink, "missing_extras", tuple)
    with pytest.raises(sink.TrackerError, match=f"--extra {extra}"):
        sink.make_sink(tracker)


def test_without_trackers_nothing_is_read(publish: Publish, tmp_path: Path) -> None:
    assert track_generation(publish(LAST)) == {}
    assert not (tmp_path / "storage" / recorded.RUN / "trackers.json").exists()


def test_the_identity_of_a_run_is_that_of_its_folder(publish: Publish, tmp_path: Path) -> None:
    file = tmp_path / "storage" / recorded.RUN / "trackers.json"
    first = read_run(publish(1)).id
    assert first == read_run(publish(2)).id == json.loads(file.read_text())["id"]
    assert first.startswith("demo-02c8c86b-")
    file.unlink()  # the data of the run was deleted: another run begins
    assert read_run(publish(1)).id != first
