from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.unit.jobs.stages.score.candidates import recognizer, responder, table

from selfemo_api.contract import StageConfig
from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_jobs.acceleration.prompt_states import PromptStates
from selfemo_jobs.errors import DamagedResult, Terminated
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest, read_manifest
from selfemo_jobs.runtime.schemas import LABEL_SETS, SCORED
from selfemo_jobs.runtime.tables import encode_table, read_tables
from selfemo_jobs.stages.score import stage as score_stage
from selfemo_jobs.stages.score.judge import JudgeReader, reading_tokens
from selfemo_jobs.stages.score.stage import PROGRAM, summary_path
from selfemo_jobs.store import join, open_store
from selfemo_jobs.store.hashing import sha256

JOY, ANGER = ["joy"], ["anger"]
PARTS = {
    "part-00000.parquet": table(
        recognizer("u1", [JOY, JOY, JOY, ANGER]),
        responder("x1", JOY, ["What a day", "  ", "What a day", "I was at home, you know"]),
    ),
    "part-00001.parquet": table(recognizer("u2", [ANGER] * 4, gold=ANGER)),
    "part-00002.parquet": table(responder("x2", ANGER, ["a b", "c d", "e f", "g h"])),
}

Config = Callable[..., StageConfig]


@pytest.fixture
def config(
    make_spec: Callable[..., EvolutionSpec],
    make_config: Config,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> StageConfig:
    """A score stage over the parts; the policy is nowhere, since only the judge may be read."""
    monkeypatch.setenv("SELFEMO_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("SELFEMO_TERMINATION_LOG", str(tmp_path / "said"))
    # the test model seldom names an emotion: at this weight the group alone carries the vote
    spec = make_spec(reward={"judge": {"samples": 3, "weight": 0.25}})
    config = make_config(
        Stage.SCORE, spec=spec, policy=f"file://{tmp_path}/nowhere", judge=f"file://{tiny_model}"
    )
    uri = publish(config, PARTS)
    return config.model_copy(update={"parents": {"selfplay": uri}})


def publish(
    config: StageConfig,
    tables: Mapping[str, pa.Table | bytes],
    report: dict[str, Any] | None = None,
) -> str:
    """Write self-play's result and return its manifest's URI."""
    store = open_store(config.spec.storage)
    folder = config.output.rsplit("/", 1)[0] + "/selfplay"
    parts = []
    for path, part in tables.items():
        data = part if isinstance(part, bytes) else encode_table(part)
        store.put(join(folder, path), data)
        parts.append({"path": path, "sha256": sha256(data), "size": len(data)})
    manifest = Manifest(
        run=config.run,
        stage=Stage.SELF_PLAY,
        generation=1,
        seed=1,
        config_sha256="0" * 64,
        config={},
        parts=parts,
        report=report or {},
    )
    store.put(join(folder, MANIFEST), manifest.encode())
    return join(folder, MANIFEST)


def run(config: StageConfig) -> StageResult:
    result = PROGRAM.run(config)
    assert isinstance(result, StageResult)
    return result


def folder_of(config: StageConfig) -> Path:
    return Path(config.output.removeprefix("file://"))


def rows_of(config: StageConfig) -> list[dict[str, Any]]:
    store = open_store(config.spec.storage)
    uri = join(config.output, MANIFEST)
    tables = read_tables(store, uri, read_manifest(store, uri)[0], SCORED)
    return [row for part in tables for row in part.to_pylist()]


def test_every_candidate_gets_its_reward_from_the_judge(config: StageConfig) -> None:
    result = run(config)
    rows = rows_of(config)
    assert [r["group_id"] for r in rows] == ["u1"] * 4 + ["x1"] * 4 + ["u2"] * 4 + ["x2"] * 4
    assert result.rows == len(rows)
    assert result.metrics["groups"] == 4
    assert result.metrics["groupsDropped"] == 0
    assert result.metrics["rewardMean"] == pytest.approx(
        np.mean([r["reward"] for r in rows]), abs=1e-5
    )
    spec = config.spec.reward
    for row in rows:
        terms = (
            spec.weights.alignment * row["alignment"]
            + spec.weights.consistency * row["agreement"]
            + spec.weights.format * row["format"]
            - row["penalty"]
        )
        assert row["reward"] == pytest.approx(terms, abs=1e-6)
    x1 = [r for r in rows if r["group_id"] == "x1"]
    assert x1[0]["reward"] == x1[2]["reward"]  # equal responses are read once
    assert (x1[1]["alignment"], x1[1]["agreement"]) == (0.0, 0.0)  # who says nothing …
    report = read_manifest(open_store(config.spec.storage), result.manifest)[0].report
    assert sum(report["rewardHistogram"]["counts"]) == 16
    assert report["gold"]["groups"] == 1


@pytest.mark.parametrize(("report", "tokens"), [({}, 1), ({LABEL_SETS: True}, 6)])
def test_the_judge_reads_whole_sets_where_self_play_has_them(
    config: StageConfig,
    report: dict[str, Any],
    tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judge = config.spec.reward.judge.model_copy(update={"max_tokens": 1})
    reward = config.spec.reward.model_copy(update={"judge": judge})
    spec = config.spec.model_copy(update={"reward": reward})
    limits = []

    class Reader(JudgeReader):
        def __init__(self, engine: Any, spec: EvolutionSpec, *, label_sets: bool) -> None:
            limits.append(reading_tokens(spec, engine.tokenizer, label_sets=label_sets))
            super().__init__(engine, spec, label_sets=label_sets)

    monkeypatch.setattr(score_stage, "JudgeReader", Reader)
    run(
        config.model_copy(
            update={"spec": spec, "parents": {"selfplay": publish(config, PARTS, report)}}
        )
    )
    assert limits == [tokens]


def test_the_same_seed_gives_the_same_manifest_and_another_does_not(config: StageConfig) -> None:
    first = run(config)
    other = config.model_copy(update={"output": config.output + "-again"})
    assert run(other).manifest_sha256 == first.manifest_sha256
    seeded = config.model_copy(update={"output": config.output + "-seed", "seed": 5})
    assert run(seeded).manifest_sha256 != first.manifest_sha256


def test_a_cut_off_stage_goes_on_and_ends_the_same(
    config: StageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(config)
    folder = folder_of(config)
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    # as if killed after the second part's table was written and before its summary
    (folder / MANIFEST).unlink()
    parts = {part.name: part for part in manifest.parts}
    for number in (1, 2):
        table = parts[f"part-0000{number}.parquet"]
        (folder / "parts" / f"{summary_path(table.path)}.json").unlink()
    for path in (folder / table.path, folder / "parts" / f"{table.name}.json"):
        path.unlink()
    next(folder.glob("part-00002-*.tally.json")).unlink()
    scored = []
    plain = score_stage.score_candidates

    def watched(table: pa.Table, *args: Any, **kwargs: Any) -> Any:
        scored.append(table["group_id"][0].as_py())
        return plain(table, *args, **kwargs)

    monkeypatch.setattr(score_stage, "score_candidates", watched)
    again = run(config)
    assert scored == ["u2", "x2"]
    assert again.manifest_sha256 == whole.manifest_sha256
    assert not again.reused


def test_a_killed_attempt_keeps_its_finished_parts(
    config: StageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, seen = score_stage.score_candidates, []

    def killed(table: pa.Table, *args: Any, **kwargs: Any) -> Any:
        if seen:
            raise Terminated("killed")
        seen.append(1)
        return plain(table, *args, **kwargs)

    monkeypatch.setattr(score_stage, "score_candidates", killed)
    with pytest.raises(Terminated):
        run(config)
    assert not (folder_of(config) / MANIFEST).exists()
    monkeypatch.setattr(score_stage, "score_candidates", plain)
    resumed = run(config)
    whole = run(config.model_copy(update={"output": config.output + "-whole"}))
    assert resumed.manifest_sha256 == whole.manifest_sha256


@pytest.mark.parametrize("path", ["part-00001-*.parquet", "part-00001-*.tally.json"])
def test_a_damaged_part_is_scored_again(config: StageConfig, path: str) -> None:
    whole = run(config)
    (folder_of(config) / MANIFEST).unlink()
    (stored,) = folder_of(config).glob(path)
    stored.write_bytes(stored.read_bytes()[:-10])
    assert run(config).manifest_sha256 == whole.manifest_sha256
    assert len(rows_of(config)) == 16


def test_no_model_is_loaded_when_all_parts_are_done(
    config: StageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(config)
    (folder_of(config) / MANIFEST).unlink()

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the judge was loaded")

    monkeypatch.setattr(score_stage, "open_engine", refuse)
    assert run(config).manifest_sha256 == first.manifest_sha256


def test_without_a_weight_the_judge_reads_no_targets(
    config: StageConfig, make_spec: Callable[..., EvolutionSpec]
) -> None:
    spec = make_spec(reward={"judge": {"samples": 3, "weight": 0.0}})
    alone = config.model_copy(update={"spec": spec, "output": config.output + "-alone"})
    run(alone)
    u1 = [r for r in rows_of(alone) if r["group_id"] == "u1"]
    assert {tuple(r["consensus"]) for r in u1} == {("joy",)}
    assert u1[0]["alignment"] == 1.0


def test_a_changed_part_is_refused(config: StageConfig) -> None:
    uri = config.parents["selfplay"]
    path = Path(uri.removeprefix("file://")).parent / "part-00001.parquet"
    path.write_bytes(encode_table(table(recognizer("u2", [JOY] * 4))))
    with pytest.raises(DamagedResult) as caught:
        run(config)
    assert caught.value.stage is Stage.SELF_PLAY
    assert re.fullmatch(
        rf"file://{path} does not match {uri} \(sha256 is .{{12}}…, the manifest has .{{12}}…\): "
        r"SelfPlay has to run again",
        str(caught.value),
    )


def test_a_truncated_part_is_refused(config: StageConfig) -> None:
    whole = encode_table(PARTS["part-00001.parquet"])
    publish(config, {"part-00001.parquet": whole[:-20]})
    with pytest.raises(DamagedResult) as caught:
        run(config)
    assert caught.value.stage is Stage.SELF_PLAY
    generation = config.output.rsplit("/", 1)[0]
    assert re.fullmatch(
        rf"{generation}/selfplay/part-00001.parquet is not a whole Parquet file \(.*\): delete the "
        rf"folder {generation}, and run the same command again",
        str(caught.value),
    )


def test_an_incomplete_group_goes_with_the_folder_that_the_message_names(
    config: StageConfig,
) -> None:
    cut = {name: rows.slice(1) for name, rows in PARTS.items()}
    publish(config, cut)
    with pytest.raises(DamagedResult, match=r"has members \[1, 2, 3\], not 0 to 3") as caught:
        run(config)
    assert caught.value.stage is Stage.SELF_PLAY
    folder = re.findall(r"delete the folder file://(\S+), and run", str(caught.value))[0]
    shutil.rmtree(folder)
    with pytest.raises(DamagedResult, match="does not exist: SelfPlay has to run again"):
        run(config)
    publish(config, PARTS)
    assert run(config).rows == 16


def test_the_program_says_its_result(config: StageConfig, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_json()))
    assert PROGRAM.main(["--config", str(path)]) == 0
    said = StageResult.model_validate_json((tmp_path / "said").read_text())
    assert said.stage is Stage.SCORE
    assert said.rows == 16


def test_targets_that_an_earlier_generation_read_are_not_read_again(
    config: StageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = config.spec.model_copy(
        update={
            "training": config.spec.training.model_copy(update={"train_layers": 1}),
            "reward": config.spec.reward.model_copy(
                update={"judge": config.spec.reward.judge.model_copy(update={"max_tokens": 1})}
            ),
            "stopping": config.spec.stopping.model_copy(update={"max_generations": 3}),
            "self_play": config.spec.self_play.model_copy(update={"dialogues": None}),
        }
    )
    reads: list[int] = []
    plain = PromptStates.read

    def counted(states: PromptStates, prompts: Any) -> int:
        reads.append(plain(states, prompts))
        return reads[-1]

    monkeypatch.setattr(PromptStates, "read", counted)
    first = config.model_copy(update={"spec": spec})
    run(first)
    all_tokens = sum(reads)
    assert all_tokens > 0
    files = sorted((folder_of(config).parents[2] / "prompt-states").rglob("001-part-*"))
    assert files, "parts with recognizer groups have a file each"
    reads.clear()
    later = first.model_copy(update={"output": first.output + "-later", "generation": 2})
    with_states = run(later)
    assert sum(reads) == 0
    damaged = files[0].read_bytes()
    files[0].write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    for file in files[1:]:
        file.unlink()
    shutil.rmtree(tmp_path / "work")
    reads.clear()
    again = run(later.model_copy(update={"output": first.output + "-without"}))
    assert sum(reads) == all_tokens, "a damaged file is not used"
    assert again.manifest_sha256 == with_states.manifest_sha256
    last = first.model_copy(update={"output": first.output + "-last", "generation": 3})
    shutil.rmtree(folder_of(config).parents[2] / "prompt-states")
    run(last)
    assert not (folder_of(config).parents[2] / "prompt-states").exists(), "no later generation"
