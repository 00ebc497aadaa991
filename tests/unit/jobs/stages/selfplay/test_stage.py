"""The SelfPlay stage over the tiny model, as a program would be started."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from selfemo_api.contract import ENV_SHARD, ENV_WORK, ExitCode, StageConfig
from selfemo_api.results import ShardResult, StageResult
from selfemo_api.spec import EvolutionSpec, Role
from selfemo_api.stages import Stage
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.errors import BadInput, Terminated, Unavailable
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.prompts import load_prompt_set, parse_labels
from selfemo_jobs.runtime.context import StageContext
from selfemo_jobs.runtime.manifest import MANIFEST, Part, read_manifest
from selfemo_jobs.runtime.schemas import CANDIDATES, LABEL_SETS
from selfemo_jobs.runtime.tables import read_tables
from selfemo_jobs.stages.selfplay import stage
from selfemo_jobs.stages.selfplay.dialogue_state import initial_state
from selfemo_jobs.stages.selfplay.episodes import Episode
from selfemo_jobs.stages.selfplay.self_player import SelfPlayer
from selfemo_jobs.stages.selfplay.stage import PROGRAM
from selfemo_jobs.store import open_store

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    monkeypatch.delenv(ENV_SHARD, raising=False)


@pytest.fixture
def meld_file(tmp_path: Path) -> Path:
    """Six dialogues in MELD's layout, with labels."""
    path = tmp_path / "train.csv"
    write_meld(path, lambda i: EMOTIONS[i % 7])
    return path


def write_meld(path: Path, label: Callable[[int], str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["Sr No.", "Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID"])
        for i in range(24):
            turn = i % 4
            speaker = ("Ross", "Rachel")[turn % 2]
            rows.writerow([i, f"well I know {i} words", speaker, label(i), i // 4, turn])


@pytest.fixture
def config_for(
    make_spec: Callable[..., EvolutionSpec],
    make_config: Callable[..., StageConfig],
    tiny_model: Path,
    meld_file: Path,
    tmp_path: Path,
) -> Callable[..., StageConfig]:
    def build(
        store: str = "store", source: dict[str, Any] | None = None, **play: Any
    ) -> StageConfig:
        file = {"uri": f"file://{meld_file}", "format": "MELD"}
        entry = {"name": "meld", "use": "SelfPlay", **file, **(source or {})}
        dev = {"name": "dev", "use": "Evaluation", **file}
        spec = make_spec(
            model={"uri": f"file://{tiny_model}", "maxPromptTokens": 200},
            storage={"uri": f"file://{tmp_path}/{store}"},
            dataset={"sources": [entry, dev]},
            selfPlay={"batchPrompts": 8, **play},
        )
        return make_config(Stage.SELF_PLAY, spec=spec)

    return build


def table_of(config: StageConfig) -> pa.Table:
    store = open_store(config.spec.storage)
    uri = f"{config.output}/{MANIFEST}"
    manifest, _ = read_manifest(store, uri)
    return pa.concat_tables(read_tables(store, uri, manifest, CANDIDATES))


def run(config: StageConfig) -> StageResult:
    result = PROGRAM.run(config)
    assert isinstance(result, StageResult)
    return result


def manifest_bytes(config: StageConfig) -> bytes:
    return Path(config.output.removeprefix("file://"), MANIFEST).read_bytes()


def test_both_roles_play_whole_groups(config_for: Callable[..., StageConfig]) -> None:
    config = config_for()
    result = run(config)
    rows = table_of(config).to_pylist()
    # 6 dialogues x 2 targets x 2 roles x G
    assert result.rows == len(rows) == 6 * 2 * 2 * 4
    assert result.metrics["candidates"] == 96
    assert result.metrics["groups"] == 24
    assert 0 < result.metrics["diversity"] <= 1
    assert result.metrics["tokens"] == sum(len(r["completion_ids"]) for r in rows)
    intended = []
    for name, group in groupby(rows, key=lambda r: r["group_id"]):
        members = list(group)
        assert [m["member"] for m in members] == [0, 1, 2, 3], name
        assert len({tuple(m["prompt_ids"]) for m in members}) == 1
        first = members[0]
        if first["role"] == Role.RESPONDER:
            intended += first["intended"]
            assert sum(m["chosen"] for m in members) <= 1
            assert first["target"] is None and first["labels"] is None
        else:
            assert first["speaker"] in ("Ross", "Rachel") and first["intended"] is None
        for member in members:
            assert len(member["logprobs"]) == len(member["completion_ids"]) > 0
            assert all(value <= 0 for value in member["logprobs"])
            assert member["gold"] is None
    assert len(intended) == 12 and max(map(intended.count, EMOTIONS)) <= 2


def test_views_are_written_with_the_first_member(
    config_for: Callable[..., StageConfig], tiny_model: Path
) -> None:
    from selfemo_jobs.models.fetch import load_tokenizer

    config = config_for(targetsPerDialogue=4)
    views = [{"past": 0}, {"past": 2, "future": 1}]
    spec = config.spec.to_json() | {"reward": {"judge": {"views": views}}}
    config = config.model_copy(update={"spec": EvolutionSpec.model_validate(spec)})
    run(config)
    tokenizer = load_tokenizer(tiny_model)
    seen = set()
    for row in table_of(config).to_pylist():
        if row["role"] == Role.RESPONDER or row["member"] > 0:
            assert row["views"] == []
            continue
        texts = [tokenizer.decode(ids) for ids in row["views"]]
        assert len(texts) == 2
        # six dialogues of four turns, each turn with its number
        number, place = int(row["target"].split()[-2]), row["utterance"]
        shown = [[i for i in range(24) if f" {i} words" in text] for text in texts]
        first, last = number - place, number - place + 3
        assert shown[0] == [number]
        assert shown[1] == list(range(max(first, number - 2), min(last, number + 1) + 1))
        seen.add(place)
    assert seen == {0, 1, 2, 3}


def test_prompts_and_answers_are_those_of_the_prompt_set(
    config_for: Callable[..., StageConfig], tiny_model: Path
) -> None:
    from selfemo_jobs.models.fetch import load_tokenizer

    config = config_for()
    run(config)
    tokenizer, prompts = load_tokenizer(tiny_model), load_prompt_set("compact-v1")
    for row in table_of(config).to_pylist():
        text = tokenizer.decode(row["prompt_ids"])
        said = [f"{t['speaker']}: {t['text']}" for t in row["context"]]
        if row["role"] == Role.RECOGNIZER:
            lines = [*said, f"{row['speaker']}: {row['target']}", "Emotion:"]
            parsed = parse_labels(row["completion"], EMOTIONS)
            assert tuple(row["labels"]) == parsed.labels
            assert row["well_formed"] == (parsed.well_formed and row["finished"])
        else:
            lines = [*said, f"({row['intended'][0]}) {row['speaker']}:"]
            assert row["speaker"] != row["context"][-1]["speaker"]
        assert text == "\n".join(lines)
        decoded = tokenizer.decode(row["completion_ids"], skip_special_tokens=True)
        assert decoded.split(prompts.stop(Role.RESPONDER)[0])[0] == row["completion"]


def test_chosen_responses_go_on_for_several_turns(config_for: Callable[..., StageConfig]) -> None:
    config = config_for(
        turns=3, temperature=0.7, groupSize=6, maxTokens={"responder": 24}, dialogues=5
    )
    run(config)
    rows = table_of(config).to_pylist()
    episodes: dict[tuple[str, int], dict[int, list[dict[str, Any]]]] = {}
    for row in rows:
        turns = episodes.setdefault((row["dialogue_id"], row["utterance"]), {})
        turns.setdefault(row["turn"], []).append(row)
    assert any(2 in turns for turns in episodes.values()), "no episode reached its third turn"
    for turns in episodes.values():
        for turn in range(1, max(turns) + 1):
            chosen = next(r for r in turns[turn - 1] if r["chosen"])
            assert chosen["well_formed"]
            reads = next(r for r in turns[turn] if r["role"] == Role.RECOGNIZER)
            assert reads["target"] == chosen["completion"].strip()
            assert reads["speaker"] == chosen["speaker"]
            answers = next(r for r in turns[turn] if r["role"] == Role.RESPONDER)
            assert answers["context"][-1]["text"] == reads["target"]
            assert answers["speaker"] != reads["speaker"]


def test_labels_of_a_source_are_not_read(
    config_for: Callable[..., StageConfig], meld_file: Path
) -> None:
    """Shuffled, blank, or nonsense labels change no byte of what is written."""

    def outcome(name: str, label: Callable[[int], str]) -> list[bytes]:
        write_meld(meld_file, label)
        config = config_for(name)
        run(config)
        folder = Path(config.output.removeprefix("file://"))
        return [p.read_bytes() for p in sorted(folder.glob("part-*"))] + [manifest_bytes(config)]

    shuffled = random.Random(1).sample(range(24), 24)
    plain = outcome("plain", lambda i: EMOTIONS[i % 7])
    assert outcome("shuffled", lambda i: EMOTIONS[shuffled[i] % 7]) == plain
    assert outcome("blank", lambda i: "") == plain
    assert outcome("nonsense", lambda i: "⁇") == plain
    assert len(plain) == 4


def test_labels_are_gold_where_the_spec_allows_it(config_for: Callable[..., StageConfig]) -> None:
    config = config_for(source={"use": "Labeled"}, turns=2, groupSize=2)
    run(config)
    for row in table_of(config).to_pylist():
        if row["role"] == Role.RECOGNIZER and row["turn"] == 0:
            number = int(row["dialogue_id"]) * 4 + row["utterance"]
            assert row["gold"] == [EMOTIONS[number % 7]]
        else:
            assert row["gold"] is None


@pytest.mark.parametrize("use", ["Labeled", "SelfPlay"])
def test_gold_sets_are_kept_and_reported(
    config_for: Callable[..., StageConfig], tmp_path: Path, use: str, monkeypatch: Any
) -> None:
    sets = [["joy"], ["surprise", "joy"]]
    turns = [{"speaker": "AB"[i], "text": f"line {i}", "labels": sets[i]} for i in range(2)]
    file = tmp_path / "sets.jsonl"
    file.write_text("".join(json.dumps({"id": f"d{d}", "turns": turns}) + "\n" for d in range(4)))
    source = {"uri": f"file://{file}", "format": "JSONL", "use": use}
    config = config_for(source=source, shards=2, roles=["Recognizer"])
    for shard in (0, 1):
        monkeypatch.setenv(ENV_SHARD, str(shard))
        PROGRAM.run(config)
    golds = {(r["utterance"], tuple(r["gold"] or ())) for r in table_of(config).to_pylist()}
    uri = f"{config.output}/{MANIFEST}"
    report = read_manifest(open_store(config.spec.storage), uri)[0].report
    if use == "Labeled":
        assert golds == {(0, ("joy",)), (1, ("surprise", "joy"))}
        assert report[LABEL_SETS] is True
    else:  # whether there are labels must not show
        assert golds == {(0, ()), (1, ())}
        assert LABEL_SETS not in report


def test_one_role_alone(config_for: Callable[..., StageConfig]) -> None:
    reader, writer = config_for("a", roles=["Recognizer"]), config_for("b", roles=["Responder"])
    assert run(reader).rows == run(writer).rows == 48
    assert set(table_of(reader)["role"].to_pylist()) == {"Recognizer"}
    assert set(table_of(writer)["role"].to_pylist()) == {"Responder"}


def test_the_responder_answers_a_share_of_the_targets(
    config_for: Callable[..., StageConfig],
) -> None:
    runs = [
        run_rows(config_for(store, targetsPerDialogue=4, turns=2, responderShare=share))
        for store, share in (("half", 0.5), ("same", 0.5), ("all", 1.0))
    ]
    half, same, whole = ({row["group_id"]: row for row in rows} for rows in runs)
    assert half.keys() == same.keys()
    answered = {row["utterance"] for row in half.values() if row["role"] == Role.RESPONDER}
    assert len(answered) > 1, "the draw does not follow the place in the dialogue"
    first = [row for row in half.values() if row["turn"] == 0]
    assert sum(row["role"] == Role.RECOGNIZER for row in first) == 24
    assert 6 <= sum(row["role"] == Role.RESPONDER for row in first) <= 18
    # a target that is not answered has one turn; the others go on as before
    later = {key for key, row in half.items() if row["turn"] == 1}
    assert 0 < len(later) <= 2 * sum(row["role"] == Role.RESPONDER for row in first)
    assert half.keys() < whole.keys()
    assert {row["role"] for row in half.values() if row["turn"] == 1} == {*Role}


def run_rows(config: StageConfig) -> list[dict[str, Any]]:
    run(config)
    rows: list[dict[str, Any]] = table_of(config).to_pylist()
    return rows


def test_shards_together_make_what_one_makes(
    config_for: Callable[..., StageConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, shared = config_for("one"), config_for("three", shards=3)
    whole = run(alone)
    results = []
    for shard in (2, 0, 1):
        monkeypatch.setenv(ENV_SHARD, str(shard))
        results.append(PROGRAM.run(shared))
    assert [type(r) for r in results] == [ShardResult, ShardResult, StageResult]
    assert isinstance(results[-1], StageResult)
    assert results[-1].metrics == whole.metrics
    folders = [Path(c.output.removeprefix("file://")) for c in (alone, shared)]
    one, three = ({p.name: p.read_bytes() for p in f.glob("part-*")} for f in folders)
    assert one == three and len(one) == 3


def test_killed_and_started_again_ends_with_the_same_manifest(
    config_for: Callable[..., StageConfig], tmp_path: Path
) -> None:
    undisturbed, killed = config_for("calm"), config_for("killed")
    run(undisturbed)
    file = tmp_path / "config.json"
    file.write_text(killed.model_dump_json(by_alias=True, exclude_none=True))
    command = [sys.executable, "-m", "selfemo_jobs.stages.selfplay", "--config", str(file)]
    log = (tmp_path / "termination").as_posix()
    environment = {**os.environ, "SELFEMO_TERMINATION_LOG": log}
    records = Path(killed.output.removeprefix("file://"), "parts")
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not list(records.glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    kept = {p: p.stat().st_mtime_ns for p in records.glob("*.json")}
    assert kept
    again = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert again.returncode == ExitCode.OK, again.stderr
    assert manifest_bytes(killed) == manifest_bytes(undisturbed).replace(b"/calm/", b"/killed/")
    assert {p: p.stat().st_mtime_ns for p in kept} == kept, "finished parts were played again"


def test_a_damaged_part_is_played_again(config_for: Callable[..., StageConfig]) -> None:
    config = config_for()
    run(config)
    expected = manifest_bytes(config)
    folder = Path(config.output.removeprefix("file://"))
    (folder / MANIFEST).unlink()
    (part,) = folder.glob("part-00001-*.parquet")
    part.write_bytes(part.read_bytes()[:-10])
    run(config)
    assert manifest_bytes(config) == expected


def test_a_source_that_is_corrected_between_two_attempts_is_played_from_scratch(
    config_for: Callable[..., StageConfig], meld_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of both contents in one result would repeat some dialogues and miss others."""
    config = config_for(dialogues=4, targetsPerDialogue=1, batchPrompts=1)
    plain, parts = stage.put_table, []

    def killed(context: StageContext, path: str, table: pa.Table) -> Part:
        if len(parts) == 2:
            raise Terminated("killed")
        parts.append(path)
        return plain(context, path, table)

    monkeypatch.setattr(stage, "put_table", killed)
    with pytest.raises(Terminated):
        run(config)
    monkeypatch.setattr(stage, "put_table", plain)
    text = meld_file.read_text(encoding="utf-8").splitlines(keepends=True)
    header, rows = text[0], text[1:]
    meld_file.write_text(header + "".join(rows[4:]), encoding="utf-8")  # the first dialogue goes
    run(config)
    fresh = config_for("fresh", dialogues=4, targetsPerDialogue=1, batchPrompts=1)
    run(fresh)
    assert table_of(config).equals(table_of(fresh))
    groups = table_of(config)["group_id"].to_pylist()
    assert len(groups) == len({*groups}) * 4, "a group was played twice"


def test_a_source_that_changes_while_it_is_read_is_read_again_by_the_next_attempt(
    config_for: Callable[..., StageConfig], meld_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = stage.read_sources

    def slow(*args: Any) -> Any:
        sources = plain(*args)
        write_meld(meld_file, lambda _i: "joy")
        return sources

    monkeypatch.setattr(stage, "read_sources", slow)
    with pytest.raises(Unavailable, match=r"train\.csv changed while it was read; run the"):
        run(config_for(dialogues=1))


def test_a_second_run_answers_from_the_manifest(config_for: Callable[..., StageConfig]) -> None:
    config = config_for(dialogues=1)
    first = run(config)
    second = run(config)
    assert second.reused and second.manifest_sha256 == first.manifest_sha256


def test_the_models_seed_is_the_stages(
    config_for: Callable[..., StageConfig], tmp_path: Path
) -> None:
    one = config_for("a", dialogues=2)
    two = config_for("b", dialogues=2).model_copy(update={"seed": one.seed + 1})
    run(one)
    run(two)
    texts = [table_of(c)["completion"].to_pylist() for c in (one, two)]
    assert texts[0] != texts[1]


def test_parts_of_other_settings_are_not_taken_over(config_for: Callable[..., StageConfig]) -> None:
    """A stage that was cut off, and whose spec was then edited, episodes all its parts again."""
    expected, edited = config_for("calm"), config_for("edited")
    run(expected)
    play = edited.spec.self_play.model_copy(update={"temperature": 0.5})
    other = edited.model_copy(update={"spec": edited.spec.model_copy(update={"self_play": play})})
    run(other)
    (Path(edited.output.removeprefix("file://")) / MANIFEST).unlink()  # as if it had been cut off
    run(edited)
    assert manifest_bytes(edited).replace(b"/edited/", b"/calm/") == manifest_bytes(expected)


def test_prompts_that_never_fit_are_named(
    config_for: Callable[..., StageConfig], tmp_path: Path
) -> None:
    config = config_for()
    short = config.spec.model.model_copy(update={"max_prompt_tokens": 3})
    spec = config.spec.model_copy(update={"model": short})
    context = StageContext(
        config.model_copy(update={"spec": spec}), open_store(spec.storage), 0, 1, tmp_path
    )
    with pytest.raises(BadInput, match=r"source `meld` dialogue \d utterance \d.*maxPromptTokens"):
        PROGRAM.work(context)


def test_no_response_is_chosen_that_the_responder_could_not_answer(
    make_spec: Callable[..., EvolutionSpec], tiny_model: Path
) -> None:
    shown = "{% for turn in context %}" + "{{ turn.text }} " * 20 + "{% endfor %}"
    respond = shown + "{{ intended | join(', ') }}"
    spec = make_spec(model={"maxPromptTokens": 100, "promptTemplates": {"respond": respond}})
    player = SelfPlayer(SimpleNamespace(tokenizer=load_tokenizer(tiny_model)), spec, 1)  # type: ignore[arg-type]
    dialogue = Dialogue("d", (Utterance("Ann", "Hi."),))
    state = initial_state(Episode(0, "demo", dialogue, 0, False, (("joy",), ("joy",))))
    assert player._can_go_on(state.with_response("Yes."), 1)
    assert not player._can_go_on(state.with_response("Yes, I do know what you mean."), 1)
