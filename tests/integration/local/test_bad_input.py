"""Bad input ends a run with exit code 2 and one line that names the place. No result is lost."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selfemo_api import dataset_labels
from tests.integration.local.conftest import DEMO, LocalRun
from tests.support.s3_server import S3Server

MELD_HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"


def _meld(*rows: str, head: str = MELD_HEAD) -> bytes:
    return (head + "".join(row + "\n" for row in rows)).encode()


GOOD_ROW = "1,Hello there,Ann,neutral,neutral,0,0"

#: Format and content of the evaluation file, and the message after the file's URI: a regular
#: expression for all of it.
FILES: dict[str, tuple[str, bytes, str]] = {
    "missing column": (
        "MELD",
        _meld("1,Hello,Ann,0,0", head="Sr No.,Utterance,Speaker,Dialogue_ID,Utterance_ID\n"),
        r": column `Emotion` is missing "
        r"\(columns in the file: Sr No\., Utterance, Speaker, Dialogue_ID, Utterance_ID\)",
    ),
    "unknown emotion": (
        "MELD",
        _meld(GOOD_ROW, "2,Hm,Bo,bored,neutral,0,1"),
        r" line 3: `Emotion` is `bored`, an unknown emotion: `dataset\.labels` contains neutral, "
        r"surprise, fear, sadness, joy, disgust, anger\. "
        r"1 of 2 labels do not match \(bored: 1\): \w+ the file or `dataset\.labels`, "
        r"or map them in `dataset\.labelMap`",
    ),
    "broken encoding": (
        "MELD",
        _meld(GOOD_ROW) + b"2,\x81\x8d\x9d,Bo,joy,x,0,1\n",
        r" line 3: byte 0x81 is not UTF-8: save the file as UTF-8",
    ),
    "empty dialogue": (
        "JSONL",
        b'{"id": "d1", "turns": []}\n',
        r" line 1: `turns` is empty: [\w ]+",
    ),
    "not the format": (
        "JSONL",
        b"Utterance,Speaker\nHello,Ann\n",
        r" line 1: not JSON: Expecting value",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_data_file(make_run: Any, case: str) -> None:
    kind, data, message = FILES[case]
    run = make_run("file")
    path = run.folder / "dialogues.data"
    path.write_bytes(data)
    source = {"name": "dev", "use": "Evaluation", "uri": f"file://{path}", "format": kind}
    run.spec["dataset"]["sources"][1] = source
    run.write()
    _assert_refused(run, re.escape(f"dataset.sources[1].uri: file://{path}") + message)


def test_labels_that_do_not_fit(make_run: Any) -> None:
    run = make_run("labels", dataset__labels=[x for x in dataset_labels.MELD if x != "joy"])
    lines = (DEMO / "dev.jsonl").read_text().splitlines()
    labels = [label for line in lines for t in json.loads(line)["turns"] for label in t["labels"]]
    joy = labels.count("joy")
    _assert_refused(
        run,
        re.escape(f"dataset.sources[1].uri: file://{DEMO}/dev.jsonl")
        + r" line 1: `labels` is `joy`, an unknown emotion: `dataset\.labels` contains neutral, "
        r"surprise, fear, sadness, disgust, anger\. "
        rf"{joy} of {len(labels)} labels do not match \(joy: {joy}\): "
        r"\w+ the file or `dataset\.labels`, or map them in `dataset\.labelMap`",
    )


def test_wrong_model_path(make_run: Any) -> None:
    run = make_run("model", model__uri="file:///nowhere/model")
    _assert_refused(run, "model.uri: file:///nowhere/model does not exist")


def test_yaml_names_field_and_line(make_run: Any) -> None:
    run = make_run("yaml", selfPlay__groupSize=1)
    lines = run.file.read_text().splitlines()
    (number,) = (n for n, line in enumerate(lines, 1) if line.strip() == "groupSize: 1")
    field = "spec.selfPlay.groupSize"
    message = "Invalid value: 1: should be greater than or equal to 2"
    code, result, err = run.finish()
    assert (code, err) == (2, "")
    assert result == {
        "error": f"{run.file}: {field}: {message} (line {number})",
        "kind": "BadInput",
        "exitCode": 2,
        "problems": [{"file": str(run.file), "field": field, "message": message, "line": number}],
    }
    done = subprocess.run(
        [*run.command(), "--output", "table"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"selfemo run: {result['error']}\n"


def _assert_refused(run: LocalRun, pattern: str, stage: str = "Check") -> None:
    """Run to the end: a stage of generation 0 fails, and the pattern matches its whole message."""
    code, result, err = run.finish()
    assert code == 2, err[-3000:]
    assert result["reason"] == "BadInput"
    message = result["message"]
    assert re.fullmatch(f"generation 0, {stage}: {pattern}", message), message
    assert err.endswith(f"BadInput: {message}\n")
    assert "Traceback" not in err


@pytest.mark.slow
def test_damaged_results(make_run: Any) -> None:
    """A truncated part is named in the error; the run continues once the part is restored."""
    run = make_run("damaged", stopping__maxGenerations=1)
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
    manifest = part.with_name("manifest.json")
    assert re.fullmatch(
        rf"generation 1, Score: {re.escape(f'file://{part} does not match file://{manifest}')}: "
        r"sha256 is [0-9a-f]{12}…, the manifest \w+ [0-9a-f]{12}….*",
        result["message"],
    ), result["message"]
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
    """The retries of the S3 client bridge an outage of some seconds."""
    runner = on_s3.start()
    _wait_for_stage(on_s3, "selfplay", runner)
    s3.stop()
    time.sleep(5)
    s3.start()
    out, err = runner.communicate(timeout=400)
    assert runner.returncode == 0, err[-3000:]
    assert json.loads(out)["phase"] == "Succeeded"


@pytest.mark.slow
def test_s3_away_for_longer_than_all_retries(on_s3: LocalRun, s3: S3Server) -> None:
    """The run fails after `maxDisruptions`; once S3 is back, the same command continues it."""
    on_s3.spec["overrides"]["storage"] = {"maxAttempts": 1}
    on_s3.spec["overrides"]["failurePolicy"]["maxDisruptions"] = 1
    on_s3.write()
    runner = on_s3.start()
    _wait_for_stage(on_s3, "selfplay", runner)
    s3.stop()
    out, err = runner.communicate(timeout=200)
    assert runner.returncode == 1, err[-3000:]
    result = json.loads(out)
    assert result["reason"] == "StageFailed"
    assert [g["generation"] for g in result["generations"]] == [0]
    assert result["report"] == ""  # it needs the storage, too
    assert "No report: the report could not be written: s3://" in err
    assert re.fullmatch(
        rf"generation 1, SelfPlay: {re.escape(on_s3.spec['storage']['uri'])}/\S+ at "
        rf"{re.escape(s3.endpoint)}: S3 could not be reached in 1 attempts \(.+\); "
        r"run the same command again when it is available",
        result["message"],
    ), result["message"]
    assert _exit_codes(on_s3, "g001-selfplay") == [75, 75]
    s3.start()
    code, result, err = on_s3.finish()
    assert code == 0, err[-3000:]
    assert result["phase"] == "Succeeded"
    assert _exit_codes(on_s3, "g001-selfplay") == [75, 75, 0]
    assert _exit_codes(on_s3, "g000-check") == [0]  # not repeated
    assert _exit_codes(on_s3, "g000-evaluate") == [0]


def _exit_codes(run: LocalRun, stage: str) -> list[int]:
    """Return the exit code of each attempt of a stage, e.g. of ``g001-selfplay``."""
    records = sorted(run.jobs.glob(f"tiny-{stage}-*/job.json"))
    return [json.loads(path.read_text())["exitCode"] for path in records]


@pytest.mark.slow
def test_s3_denied(on_s3: LocalRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    code, result, err = on_s3.finish()
    assert code == 2, err[-3000:]
    assert re.fullmatch(
        r"generation 0, Check: storage\.uri: "
        rf"{re.escape(on_s3.spec['storage']['uri'])}/\S+ at \S+: "
        r"SignatureDoesNotMatch: .+: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        r"`storage\.credentialsSecretRef`, or configure an identity for the pod's service account",
        result["message"],
    ), result["message"]
    assert "wrong-secret" not in err + result["message"]


def _wait_for_stage(run: LocalRun, stage: str, runner: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and runner.poll() is None:
        if run.jobs.is_dir() and any(stage in folder.name for folder in run.jobs.iterdir()):
            return
        time.sleep(0.1)
    raise AssertionError(f"{stage} did not start")


def test_full_disk(make_run: Any, tmp_path: Path) -> None:
    """On a file system of 64 KiB, the error contains that the disk is full, and where."""
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
        pattern = re.escape(f"{small}/store/") + r"\S+: disk full: free space .+"
        _assert_refused(run, pattern, stage="Evaluate")  # the objects of the check were small
    finally:
        subprocess.run(["umount", str(small)], check=True)
