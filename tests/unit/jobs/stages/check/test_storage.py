"""The storage: what a run relies on is tried, against a real server and against picky ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.faulty_proxy import BUSY, PASS, FaultyProxy
from tests.support.picky_s3 import Habit, PickyS3
from tests.support.s3_server import S3Server
from tests.unit.jobs.stages.check.world import World

from selfemo_api.spec import StorageSpec
from selfemo_jobs.errors import InputProblems, Unavailable
from selfemo_jobs.stages.check.findings import Findings
from selfemo_jobs.stages.check.storage import Reader, check_storage
from selfemo_jobs.store import join, open_store, open_store_later


def found(storage: StorageSpec) -> tuple[Reader, list[str], list[str], list[str]]:
    """Return the reader, the problems, the warnings, and what did not respond."""
    findings = Findings()
    reader = check_storage(open_store_later(storage), f"{storage.uri}/default/run/check", findings)
    groups = (findings.problems, findings.warnings, findings.unavailable)
    problems, warnings, unavailable = ([str(f) for f in group] for group in groups)
    return reader, problems, warnings, unavailable


def test_a_real_server_is_fine_and_nothing_stays(s3: S3Server, tmp_path: Path) -> None:
    storage = s3.storage(tmp_path.name)
    assert found(storage)[1:] == ([], [], [])
    assert open_store(storage).list(storage.uri) == []


def test_a_folder_is_fine_and_nothing_stays(tmp_path: Path) -> None:
    assert found(StorageSpec(uri=f"file://{tmp_path}/new/storage"))[1:] == ([], [], [])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_results_keeps_them(tmp_path: Path) -> None:
    results = tmp_path / "storage" / "default" / "run" / "check"
    results.mkdir(parents=True)
    (results / "manifest.json").write_text("{}")
    assert found(StorageSpec(uri=f"file://{tmp_path}/storage"))[1:] == ([], [], [])
    assert [path.name for path in results.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("SignatureDoesNotMatch", 403, "Access denied."),
        ("NotImplemented", 501, "A trailing checksum is not implemented"),
        ("Unauthorized", 401, "Unauthorized"),
        ("InvalidArgument", 400, "Unsupported header 'x-amz-sdk-checksum-algorithm'"),
        ("MissingContentLength", 411, "You must provide the Content-Length header"),
        ("XAmzContentSHA256Mismatch", 400, "The hash is another one"),
        ("BadDigest", 400, "The checksum did not match"),
    ],
)
def test_a_server_that_refuses_checksums(
    s3: S3Server, code: str, status: int, message: str
) -> None:
    """Whatever it answers: the same request without checksums works."""
    with PickyS3(Habit.CHECKSUMS, code=code, status=status, message=message) as server:
        reader, problems, _, _ = found(server.storage())
        assert problems == [
            f"storage.checksums: is WhenSupported, but {server.endpoint} rejects requests with "
            f"checksums ({code}: {message.rstrip('.')}): set WhenRequired"
        ]
        assert reader.store.storage.checksums == "WhenRequired"  # the rest of the input is read
        assert reader.reads_s3
        assert found(server.storage(checksums="WhenRequired"))[1:] == ([], [], [])
        assert server.objects == {}


def test_a_server_without_conditional_puts(s3: S3Server) -> None:
    with PickyS3(Habit.CONDITIONS) as server:
        assert found(server.storage())[1] == [
            f"storage.uri: {server.endpoint} rejects conditional writes (If-None-Match), which "
            "selfemo needs to detect concurrent attempts of a stage (NotImplemented: A header "
            "you provided implies functionality that is not implemented): use a server that "
            "supports them"
        ]


def test_a_server_that_ignores_conditions(s3: S3Server) -> None:
    with PickyS3(Habit.IGNORES_CONDITIONS) as server:
        assert found(server.storage())[1] == [
            f"storage.uri: {server.endpoint} ignores the condition of conditional writes "
            "(If-None-Match), which selfemo needs to detect concurrent attempts of a stage: use "
            "a server that supports it"
        ]
        assert server.objects == {}


def test_a_server_without_conditional_replacements(s3: S3Server) -> None:
    with PickyS3(Habit.REPLACEMENTS) as server:
        assert found(server.storage())[1] == [
            f"storage.uri: {server.endpoint} rejects conditional writes (If-Match), which "
            "prevent a late attempt from replacing the best model (NotImplemented: If-Match is "
            "not implemented): use a server that supports them"
        ]
        assert server.objects == {}


def test_two_problems_of_a_server_are_found_at_once(s3: S3Server) -> None:
    with PickyS3(Habit.CHECKSUMS, Habit.IGNORES_CONDITIONS) as server:
        fields = [line.partition(":")[0] for line in found(server.storage())[1]]
    assert fields == ["storage.checksums", "storage.uri"]


def test_a_server_that_does_not_delete_gives_a_warning(s3: S3Server) -> None:
    with PickyS3(Habit.DELETES) as server:
        _, problems, (warning,), _ = found(server.storage())
    assert problems == []
    assert warning.startswith(
        "storage.uri: the objects of this check could not be removed from "
        "s3://bucket/runs/default/run/check/probe-"
    )
    assert warning.endswith(": AccessDenied: No")


@pytest.mark.parametrize("keep", ["Best", "Last"])
def test_a_server_that_does_not_delete_cannot_keep_the_best_alone(s3: S3Server, keep: str) -> None:
    with PickyS3(Habit.DELETES) as server:
        _, (problem,), warnings, _ = found(server.storage(keep=keep))
    assert warnings == []
    assert problem.startswith(f"storage.keep: is {keep}, but objects may not be removed from s3://")
    assert problem.endswith(" (AccessDenied: No): grant that permission, or set All")


def test_a_missing_bucket_is_a_problem(s3: S3Server) -> None:
    storage = s3.storage().model_copy(update={"uri": "s3://nowhere/runs"})
    _, (problem,), _, _ = found(storage)
    assert problem == (
        f"storage.uri: s3://nowhere/runs/default/run/check at {s3.endpoint}: NoSuchBucket: The "
        "specified bucket does not exist: create the bucket, or fix the URI"
    )


def test_a_wrong_key_is_not_taken_for_a_checksum(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    reader, (problem,), _, _ = found(s3.storage())
    assert problem.startswith("storage.uri: s3://")
    assert "SignatureDoesNotMatch" in problem
    assert not reader.reads_s3


def test_a_server_that_is_away_is_not_a_problem(s3: S3Server, tmp_path: Path) -> None:
    with FaultyProxy(s3.port, lambda *_: BUSY) as proxy:
        storage = s3.storage(tmp_path.name, endpoint=proxy.endpoint, maxAttempts=1)
        reader, problems, _, (line,) = found(storage)
    assert problems == []
    assert "S3 responded with SlowDown (503) after all retries; run the same command again" in line
    assert not reader.reads_s3


def test_the_check_of_a_run_is_unavailable_while_s3_is(world: World, s3: S3Server) -> None:
    """Exit code 75: the stage is tried again. With a problem beside it, the problem counts."""
    with FaultyProxy(s3.port, lambda *_: BUSY) as proxy:
        storage = s3.storage("away", endpoint=proxy.endpoint, maxAttempts=1).to_json()
        world.spec["storage"] = storage
        _, findings = world.check()
        with pytest.raises(Unavailable, match=r"^storage.uri: .*SlowDown \(503\)"):
            findings.raise_if_any()
        (world.folder / "dev.jsonl").unlink()
        _, findings = world.check()
    with pytest.raises(InputProblems) as caught:
        findings.raise_if_any()
    heading, problem, line = str(caught.value).split("\n")
    assert heading == "1 problem"
    assert problem.startswith("dataset.sources[1].uri: ")
    assert line.startswith("storage.uri: not checked: ")


def test_an_input_on_s3_is_read_in_the_same_way(world: World, s3: S3Server, tmp_path: Path) -> None:
    """Model, sources and storage are in one bucket; only the header of the weights is read."""
    storage = s3.storage(tmp_path.name)
    store = open_store(storage)
    for path in world.model.iterdir():
        store.upload(path, join(storage.uri, "model", path.name))
    for name in ("train", "dev", "extra"):
        store.upload(world.folder / f"{name}.jsonl", join(storage.uri, f"{name}.jsonl"))
    world.spec["storage"] = storage.to_json()
    world.spec["model"]["uri"] = f"{storage.uri}/model"
    for source in world.sources:
        source["uri"] = f"{storage.uri}/{source['name']}.jsonl"
    requests: list[str] = []

    def plan(method: str, path: str, _count: int) -> str:
        requests.append(f"{method} {path}")
        return PASS

    with FaultyProxy(s3.port, plan) as proxy:
        world.spec["storage"]["endpoint"] = proxy.endpoint
        assert world.problems() == []
        assert any(line.endswith("model.safetensors") for line in requests)
        assert not list((world.folder / "work").rglob("*.safetensors"))
        store.put(join(storage.uri, "model", "model.safetensors"), b"cut")
        assert world.problems() == [
            f"model.uri: {storage.uri}/model: model.safetensors is truncated or not safetensors: "
            "download it again"
        ]
