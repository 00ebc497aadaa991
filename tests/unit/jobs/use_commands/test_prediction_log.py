"""The file with the turns so far: kills at every write, other requests, two processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.use_commands.prediction_log import PredictionLog
from selfemo_jobs.use_commands.prediction_rows import PredictedTurn

REQUEST: Mapping[str, Any] = {"model": "1", "input": "2", "context": {"past": 5, "future": 0}}


def turn(number: int) -> PredictedTurn:
    shares = {"joy": 1 / (number + 2), "fear": 1 - 1 / (number + 2)}
    return PredictedTurn(f"d{number // 3}", number % 3, "Ann", f"Straße {number}", ["joy"], shares)


PARTS = [[turn(0), turn(1)], [turn(2)], [turn(3), turn(4), turn(5)]]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def written(output: Path, parts: list[list[PredictedTurn]] = PARTS) -> bytes:
    with PredictionLog(output, REQUEST) as log:
        for part in parts:
            log.append(part)
        return log.path.read_bytes()


def objects(parts: list[list[PredictedTurn]]) -> list[list[dict[str, Any]]]:
    return [[turn.to_json() for turn in part] for part in parts]


def test_parts_are_there_again(output: Path) -> None:
    written(output)
    with PredictionLog(output, REQUEST) as log:
        assert log.turns == 6
        assert objects(list(log.parts())) == objects(PARTS)
        log.remove()
    assert not log.path.exists()


def test_cut_at_every_byte_it_continues_to_equal_bytes(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfemo_jobs.use_commands.prediction_log.fsync_file", lambda f: f.flush())
    whole = written(output)
    path = output.with_name("out.jsonl.partial")
    ends = [i for i, line in enumerate(whole.splitlines()) if b'"commit"' in line]
    assert len(ends) == 3
    counts = set()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        with PredictionLog(output, REQUEST) as log:
            counts.add(log.turns)
            done = list(log.parts())
            assert objects(done) == objects(PARTS[: len(done)])
            assert sum(map(len, done)) == log.turns
            for part in PARTS[len(done) :]:
                log.append(part)
        assert path.read_bytes() == whole
    assert counts == {0, 2, 3, 6}


def test_a_damaged_part_is_predicted_again(output: Path) -> None:
    whole = written(output)
    path = output.with_name("out.jsonl.partial")
    path.write_bytes(whole.replace("Straße 2".encode(), "Straße 9".encode()))
    with PredictionLog(output, REQUEST) as log:
        assert log.turns == 2


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"model": "x"}, "model"),
        ({"input": "x", "context": {"past": 4, "future": 0}}, "context and input"),
        ({"engine": "VLLM"}, "engine"),
    ],
)
def test_another_request_is_refused_and_loses_nothing(
    output: Path, change: dict[str, Any], names: str
) -> None:
    whole = written(output)
    with pytest.raises(BadInput) as caught:
        PredictionLog(output, {**REQUEST, **change})
    assert str(caught.value) == (
        f"{output}.partial was written by an interrupted command with different {names}: run "
        "that command again, delete the file to start over, or choose another --to"
    )
    assert Path(f"{output}.partial").read_bytes() == whole


@pytest.mark.parametrize("data", [b"My diary", b"My diary\n", b'{"request": 1}\n', b"[]\n"])
def test_a_file_of_something_else_is_refused(output: Path, data: bytes) -> None:
    path = Path(f"{output}.partial")
    path.write_bytes(data)
    with pytest.raises(BadInput, match="was not written by `selfemo predict`"):
        PredictionLog(output, REQUEST)
    assert path.read_bytes() == data


def test_two_processes_at_once(output: Path) -> None:
    with PredictionLog(output, REQUEST), pytest.raises(Unavailable, match="another process"):
        PredictionLog(output, REQUEST)
    PredictionLog(output, REQUEST).__exit__(None, None, None)


def test_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PredictionLog(tmp_path / "none" / "out.csv", REQUEST)


def test_rows_have_texts_in_any_language(output: Path) -> None:
    row = PredictedTurn("d\x85", 0, "Ann\u2028", '{"commit": ', ["joy"], None)
    written(output, [[row]])
    with PredictionLog(output, REQUEST) as log:
        assert list(log.parts()) == [[row]]
    assert json.loads(log.path.read_text().splitlines()[0]) == {"request": REQUEST}
