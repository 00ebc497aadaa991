"""Removal of a run's data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.picky_s3 import Habit, PickyS3

from selfemo_api.contract import ENV_JOB_UID, ExitCode
from selfemo_jobs.stages.purge import main


@pytest.fixture(autouse=True)
def own_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_JOB_UID, "job-1")


def _config(tmp_path: Path, run: str, permitted: str | None = "job-1") -> list[str]:
    path = tmp_path / "config.json"
    storage = {"uri": f"file://{tmp_path}/runs"}
    path.write_text(json.dumps({"run": run, "storage": storage, "permittedJob": permitted}))
    return ["--config", str(path)]


def test_the_run_goes_and_others_stay(tmp_path: Path) -> None:
    for run in ("team/demo-0123abcd", "team/demo-4567abcd"):
        (tmp_path / "runs" / run / "generations").mkdir(parents=True)
        (tmp_path / "runs" / run / "generations" / "manifest.json").write_text("{}")
    assert main(_config(tmp_path, "team/demo-0123abcd")) == ExitCode.OK
    assert main(_config(tmp_path, "team/demo-0123abcd")) == ExitCode.OK
    assert [p.name for p in (tmp_path / "runs" / "team").iterdir()] == ["demo-4567abcd"]


@pytest.mark.parametrize("run", ["", "team", "team/demo", "../x-0123abcd", "a/b/c-0123abcd", "./."])
def test_only_a_runs_folder_can_be_named(tmp_path: Path, run: str) -> None:
    (tmp_path / "runs").mkdir()
    assert main(_config(tmp_path, run)) == ExitCode.BAD_INPUT
    assert (tmp_path / "runs").is_dir()


@pytest.mark.parametrize(
    ("permitted", "job", "reason"),
    [
        (None, "job-1", "the operator has not started this Job"),
        ("job-0", "job-1", "the permission is for the Job with the uid job-0"),
        ("job-1", None, "the uid unknown: it is a copy"),
        ("", None, "it is a copy"),
    ],
)
def test_without_a_permission_for_its_own_job_nothing_is_removed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    permitted: str | None,
    job: str | None,
    reason: str,
) -> None:
    """The Job was started by hand, copied, or restored from a backup."""
    log = tmp_path / "termination"
    monkeypatch.setenv("SELFEMO_TERMINATION_LOG", str(log))
    if job is None:
        monkeypatch.delenv(ENV_JOB_UID)
    manifest = tmp_path / "runs" / "team/demo-0123abcd" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    assert main(_config(tmp_path, "team/demo-0123abcd", permitted)) == ExitCode.BAD_INPUT
    assert manifest.is_file()
    assert reason in log.read_text()
    assert "nothing was removed from file://" in log.read_text()


RUN = "team/demo-0123abcd"


def purge_on(
    server: PickyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *names: str
) -> tuple[int, str]:
    """Purge a run with some objects; return the exit code and the termination message."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    log = tmp_path / "termination"
    monkeypatch.setenv("SELFEMO_TERMINATION_LOG", str(log))
    storage = server.storage()
    root = storage.uri.removeprefix("s3://bucket").strip("/")
    for name in names:
        server.objects["/".join(filter(None, (root, RUN, name)))] = b"x"
    config = {"run": RUN, "storage": storage.to_json(), "permittedJob": "job-1"}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    code = main(["--config", str(path)])
    return code, log.read_text() if log.exists() else ""


def test_older_versions_that_the_bucket_keeps_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versioning keeps what is removed. Object lock requires versioning."""
    with PickyS3(Habit.VERSIONS) as server:
        code, message = purge_on(server, tmp_path, monkeypatch, "a", "b")
    assert code == ExitCode.BAD_INPUT
    assert server.objects == {}
    assert "the objects were removed, but the bucket keeps 2 older versions of them" in message


def test_versions_that_may_not_be_listed_are_only_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with PickyS3(Habit.SECRET_VERSIONS) as server:
        assert purge_on(server, tmp_path, monkeypatch, "a") == (ExitCode.OK, "")
    assert "the permission s3:ListBucketVersions is missing" in capsys.readouterr().err


def test_a_locked_object_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PickyS3(Habit.LOCKS) as server:
        code, message = purge_on(server, tmp_path, monkeypatch, "a", "b-locked", "c")
    assert code == ExitCode.BAD_INPUT
    assert [key.rpartition("/")[2] for key in server.objects] == ["b-locked"]
    assert f"{RUN}: 1 of 3 objects may not be removed" in message
