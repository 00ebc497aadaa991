"""The error of the stage after its processes ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from selfemo_api.spec import ResourcesSpec, TrainingSpec
from selfemo_jobs.errors import BadInput, StageError, Unavailable
from selfemo_jobs.stages.train.process_ends import common_exit_code, stage_error
from selfemo_jobs.stages.train.worker_protocol import TrainFailure, TrainJob, write_json

CLOSED = (
    "RuntimeError: [pair.cc:547] Connection closed by peer [10.0.0.7]:4217. This is caused by a "
    "remote process"
)


def job(folder: Path, nodes: int = 1) -> TrainJob:
    return TrainJob(
        training=TrainingSpec(),
        resources=ResourcesSpec(gpus_per_node=0, nodes=nodes, processes_per_node=2),
        seed=0,
        prompts="compact-v1",
        temperature=1.0,
        folder=folder,
        policy=folder,
    )


def report_failure(folder: Path, rank: int, kind: str, error: str, when: int) -> None:
    write_json(job(folder).failure_file(rank), TrainFailure(kind=kind, error=error, when=when))


def test_the_first_failure_is_the_cause(tmp_path: Path) -> None:
    report_failure(tmp_path, 0, "Internal", "RuntimeError: no such row", 2)
    report_failure(tmp_path, 1, "BadInput", "training diverged", 1)
    error = stage_error(job(tmp_path), 1)
    assert isinstance(error, BadInput)
    assert str(error) == "training diverged"


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_closed_connection_is_not_the_cause(nodes: int, tmp_path: Path) -> None:
    report_failure(tmp_path, 0, "Internal", CLOSED, 1)
    report_failure(tmp_path, 1, "Internal", "ValueError: no such row", 2)
    error = stage_error(job(tmp_path, nodes), 1)
    assert (type(error), str(error)) == (StageError, "ValueError: no such row")


@pytest.mark.parametrize(
    "error",
    [
        CLOSED,
        "DistBackendError: NCCL error: remote process exited or there was a network error",
        "DistNetworkError: failed to recv, got 0 bytes. Connection was likely closed. Did the "
        "remote server shutdown or crash?",
    ],
)
def test_a_lost_node_is_unavailable(error: str, tmp_path: Path) -> None:
    report_failure(tmp_path, 0, "Internal", error, 1)
    for code in (1, 134):  # NCCL aborts some of the processes
        found = stage_error(job(tmp_path, nodes=2), code)
        assert isinstance(found, Unavailable)
        assert "the logs of the other pods say why" in str(found)


def test_a_worker_that_nccl_aborted_without_a_report_has_lost_its_peer(tmp_path: Path) -> None:
    assert isinstance(stage_error(job(tmp_path, nodes=2), 134), Unavailable)
    assert type(stage_error(job(tmp_path, nodes=1), 134)) is StageError


def test_the_error_of_a_single_process_is_its_own(tmp_path: Path) -> None:
    report_failure(tmp_path, 0, "Internal", "OSError: broken pipe", 1)
    resources = ResourcesSpec(gpus_per_node=0, processes_per_node=1)
    error = stage_error(job(tmp_path).model_copy(update={"resources": resources}), 1)
    assert str(error) == "OSError: broken pipe"


def test_out_of_memory_names_the_settings_to_change(tmp_path: Path) -> None:
    report_failure(
        tmp_path, 0, "Internal", "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", 1
    )
    error = stage_error(job(tmp_path), 1)
    assert type(error) is StageError
    assert "microBatchSize" in str(error)


@pytest.mark.parametrize(
    "error",
    [
        "RuntimeError: [enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",
        "RuntimeError: PytorchStreamWriter failed writing file data/0: file write failed",
    ],
)
def test_a_checkpoint_that_cannot_be_written_names_the_disk(error: str, tmp_path: Path) -> None:
    report_failure(tmp_path, 0, "Internal", error, 1)
    found = stage_error(job(tmp_path), 1)
    assert isinstance(found, Unavailable)
    assert "free space on the disk of the scratch folder (SELFEMO_WORK)" in str(found)


def test_a_killed_process_reports_no_error(tmp_path: Path) -> None:
    assert "code -9 without reporting an error" in str(stage_error(job(tmp_path), -9))


@pytest.mark.parametrize(
    ("nodes", "code", "error"),
    [
        (1, 137, CLOSED),
        (2, 137, CLOSED),
        (1, 137, "RuntimeError: another text of a later version"),
        (2, 139, CLOSED),
        (1, 1, CLOSED),
    ],
)
def test_a_killed_process_is_not_hidden_by_those_that_lost_it(
    nodes: int, code: int, error: str, tmp_path: Path
) -> None:
    report_failure(tmp_path, 0, "Internal", error, 1)
    found = stage_error(job(tmp_path, nodes), code)
    assert type(found) is StageError
    assert f"code {code} without reporting an error ({error}); if the machine ran" in str(found)


def test_bad_input_counts_although_another_process_was_killed(tmp_path: Path) -> None:
    report_failure(tmp_path, 0, "BadInput", "training diverged", 1)
    assert isinstance(stage_error(job(tmp_path), 137), BadInput)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([(5, 143), (5, 143)], 143),
        ([(5, -15), (5, 143)], 143),
        ([(5, 1), (5, 143)], 1),  # torchrun ended the second one
        ([(6, 143), (5, 1)], 1),
        ([(5, 2)], 1),
        ([(5, 1), (5, -9)], 137),
        ([(5, 1), (8, -9)], 137),  # a GPU's memory is freed before the end is seen
        ([(5, 1), (35, -9)], 1),  # torchrun killed it
        ([(5, -11), (5, 143)], 139),
    ],
)
def test_torchruns_exit_code_is_that_of_the_first_end(
    ends: list[tuple[int, int]], expected: int
) -> None:
    assert common_exit_code(ends) == expected
