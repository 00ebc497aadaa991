"""Bad input ends a run with exit code 2 and one line that names the place; nothing is lost."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfemo_api import dataset_labels
from tests.integration.local.conftest import LocalRun
from tests.support.s3_server import S3Server

MELD_HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"


def _meld(*rows: str, head: str = MELD_HEAD) -> bytes:
    return (head + "".join(row + "\n" for row in rows)).encode()


GOOD_ROW = "1,Hello there,Ann,neutral,neutral,0,0"

#: What the evaluation file holds, and the words the error must have.
FILES: dict[str, tuple[str, bytes, list[str]]] = {
    "missing column": (
        "MELD",
        _meld("1,Hello,Ann,0,0", head="Sr No.,Utterance,Speaker,Dialogue_ID,Utterance_ID\n"),
        ["Emotion"],
    ),
    "unknown emotion": ("MELD", _meld(GOOD_ROW, "2,Hm,Bo,bored,neutral,0,1"), ["bored", "3"]),
    "broken encoding": ("MELD", _meld(GOOD_ROW) + b"2,\x81\x8d\x9d,Bo,joy,x,0,1\n", ["3"]),
    "empty dialogue": ("JSONL", b'{"id": "d1", "turns": []}\n', ["line 1", "turns"]),
    "not the format": ("JSONL", b"Utterance,Speaker\nHello,Ann\n", ["1"]),
}


@pytest.mark.parametrize("case", FILES)
def test_data_file(make_run: Any, case: str) -> None:
    kind, data, words = FILES[case]
    run = make_run("file")
    path = run.folder / "dialogues.data"
    path.write_bytes(data)
    run.spec["dataset"]["evaluation"] = [{"name": "dev", "uri": f"file://{path}", "format": kind}]
    run.write()
    _refused(run, "dialogues.data", *words)


def test_labels_that_do_not_fit(make_run: Any) -> None:
    run = make_run("labels", dataset__labels=[x for x in dataset_labels.MELD if x != "joy"])
    _refused(run, "dev.jsonl", "joy")


def test_wrong_model_path(make_run: Any) -> None:
    run = make_run("model", model__uri="file:///nowhere/model")
    _refused(run, "/nowhere/model")


def test_yaml_names_field_and_line(make_run: Any) -> None:
    run = make_run("yaml", selfPlay__groupSize=1)
    code, _, err = run.finish()
    assert code == 2
    assert "spec.selfPlay.groupSize" in err
    assert "line" in err


def _refused(run: LocalRun, *words: str) -> None:
    code, result, err = run.finish()
    assert code == 2, err[-3000:]
    assert result["reason"] == "BadInput"
    for word in words:
        assert word in result["message"], result["message"]
    assert "Traceback" not in err


@pytest.mark.slow
def test_damaged_results(make_run: Any) -> None:
    """A cut Parquet file and a part that was changed are named, and mending them goes on."""
    run = make_run("damaged", evolution__maxGenerations=1)
    code, _, err = run.finish()
    assert code == 0, err[-3000:]
    expected = run.manifests()
    generation = next(run.folder.glob("store/default/tiny-*/generations/001"))
    part = sorted((generation / "selfplay").glob("*.parquet"))[0]
    whole = part.read_bytes()
    for stage in ("score", "flywheel", "train", "evaluate"):
        subprocess.run(["rm", "-r", str(generation / stage)], check=True)
    state = run.folder / "state"
    state.rename(run.folder / "state-before")  # as after the loss of the runner's disk
    part.write_bytes(whole[: len(whole) // 2])
    code, result, err = run.finish()
    assert code == 2, err[-3000:]
    assert part.name in result["message"]
    part.write_bytes(whole)
    code, result, err = run.finish()
    assert code == 0, err[-3000:]
    assert run.manifests() == expected


@pytest.fixture
def on_s3(make_run: Any, s3: S3Server) -> Iterator[LocalRun]:
    run = make_run("s3")
    run.spec["storage"] = {
        "uri": f"s3://{s3.bucket}/{run.folder.name}",
        "endpoint": s3.endpoint,
        "pathStyle": True,
    }
    run.write()
    yield run
    s3.start() if s3._process is None else None


@pytest.mark.slow
def test_s3_gone_in_mid_run(on_s3: LocalRun, s3: S3Server) -> None:
    """Away for some seconds: ridden out. Away for longer: exit, and the same command goes on."""
    runner = on_s3.start()
    _wait_for_stage(on_s3, "selfplay", runner)
    s3.stop()
    time.sleep(5)
    s3.start()
    out, err = runner.communicate(timeout=400)
    assert runner.returncode == 0, err[-3000:]
    assert json.loads(out)["phase"] == "Succeeded"


@pytest.mark.slow
def test_s3_denied(on_s3: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    code, result, err = on_s3.finish()
    assert code == 2, err[-3000:]
    assert "s3://" in result["message"]
    assert "wrong-secret" not in err + result["message"]


def _wait_for_stage(run: LocalRun, stage: str, runner: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and runner.poll() is None:
        if run.jobs.is_dir() and any(stage in folder.name for folder in run.jobs.iterdir()):
            return
        time.sleep(0.1)
    raise AssertionError(f"{stage} never began")


def test_full_disk(make_run: Any, tmp_path: Path) -> None:
    """A file system of one MiB: the error says that the disk is full and where."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        run = make_run("full")
        run.spec["storage"] = {"uri": f"file://{small}/store"}
        run.write()
        (small / "filler").write_bytes(b"x" * (64 * 1024 - 4096 * 3))
        _refused(run, str(small), "full")
    finally:
        subprocess.run(["umount", str(small)], check=True)
