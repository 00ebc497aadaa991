"""The stage as a whole, over real files and a real S3 server."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from tests.support.s3_server import S3Server
from tests.unit.jobs.stages.flywheel import candidates
from tests.unit.jobs.stages.flywheel.candidates import (
    RECOGNIZER,
    RESPONDER,
    Group,
    table,
    write_stage,
)
from tests.unit.operator.controller.evolved import FILTERS

from selfemo_api.contract import ExitCode, StageConfig
from selfemo_api.metrics import DROPPED
from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec, StorageSpec
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.manifest import Manifest, read_manifest
from selfemo_jobs.runtime.schemas import ADDED, SCORED
from selfemo_jobs.runtime.tables import encode_table, read_tables
from selfemo_jobs.stages.flywheel import kept_rows as flywheel_output
from selfemo_jobs.stages.flywheel.kept_rows import assign_parts
from selfemo_jobs.stages.flywheel.scored_rows import ScoredRows
from selfemo_jobs.stages.flywheel.stage import PROGRAM
from selfemo_jobs.store import open_store

Configure = Callable[..., StageConfig]


def run(config: StageConfig) -> tuple[Manifest, pa.Table]:
    """Run the stage; return its manifest and rows, read as Train reads them."""
    result = PROGRAM.run(config)
    assert isinstance(result, StageResult)
    store = open_store(config.spec.storage)
    manifest, digest = read_manifest(store, result.manifest)
    assert result.manifest_sha256 == digest
    return manifest, pa.concat_tables(read_tables(store, result.manifest, manifest, SCORED))


def stored(config: StageConfig) -> dict[str, bytes]:
    """Return the bytes of all that must be the same in every run."""
    folder = Path(config.output.removeprefix("file://"))
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.*")) if p.name != "run.json"}


def split(rows: pa.Table, seed: int, parts: int) -> list[pa.Table]:
    """Return the rows shuffled over parts."""
    order = list(range(rows.num_rows))
    random.Random(seed).shuffle(order)
    return [rows.take(order[i::parts]) for i in range(parts)]


def test_kept_rows_are_whole_groups_unchanged_and_sorted(
    make_flywheel: Configure, tmp_path: Path, groups: list[Group], scratch: Path
) -> None:
    rows = table(groups)
    manifest, kept = run(make_flywheel(write_stage(tmp_path / "score", [rows])))
    ids = set(kept["group_id"].to_pylist())
    wanted = [row for row in rows.to_pylist() if row["group_id"] in ids]
    wanted.sort(key=lambda row: (row["role"], row["group_id"], row["member"]))
    assert kept.to_pylist() == wanted
    metrics = manifest.metrics
    assert metrics["candidates"] == 1200
    assert metrics["groups"] == 300
    assert metrics["kept"] == manifest.rows == kept.num_rows == 4 * len(ids)
    assert metrics["keptGroups"] == len(ids)
    assert metrics["keptRecognizer"] + metrics["keptResponder"] == len(ids)
    assert metrics["replayed"] == 0
    assert metrics["keptShare"] == pytest.approx(len(ids) / 300)
    assert 0 < metrics["labelEntropy"] < 1
    funnel = manifest.report["funnel"]
    cut = [line["filter"] for line in funnel if line["after"] < line["before"]]
    assert cut == [line["filter"] for line in funnel if line["filter"] != "keep"], funnel
    figures = manifest.metrics
    dropped = {n: x for n, x in figures.items() if n.startswith(DROPPED)}
    assert set(dropped) == {DROPPED + name for name in FILTERS}
    left = figures["candidates"] - sum(dropped.values())
    assert left == figures["kept"] - figures["replayedCandidates"]
    labels = Counter(row["consensus"][0] for row in wanted if row["member"] == 0)
    assert manifest.report["labels"] == dict(labels)
    for role in (RECOGNIZER, RESPONDER):
        of_role = Counter(
            r["consensus"][0] for r in wanted if r["role"] == role and r["member"] == 0
        )
        assert 2 * max(of_role.values()) <= of_role.total()
    assert not any(scratch.rglob("*.*"))


def test_order_of_rows_and_number_of_parts_change_no_byte(
    make_flywheel: Configure,
    tmp_path: Path,
    groups: list[Group],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flywheel_output, "PART_ROWS", 100)
    monkeypatch.setattr(assign_parts, "__defaults__", (100,))
    seen = []
    for seed, parts in ((1, 1), (2, 5)):
        score = write_stage(tmp_path / f"score{seed}", split(table(groups), seed, parts))
        config = make_flywheel(score, output=f"file://{tmp_path}/out{seed}")
        run(config)
        seen.append({n: data for n, data in stored(config).items() if n != "manifest.json"})
    assert len(seen[0]) > 2
    assert seen[0] == seen[1]


def test_several_emotions_are_counted_one_by_one(
    make_flywheel: Configure, tmp_path: Path, groups: list[Group]
) -> None:
    several = [
        replace(group, label=(group.label, "sadness"))
        for group in groups[::3]
        if isinstance(group.label, str)
    ]
    rest = [group for group in groups if group.id not in {g.id for g in several}]
    prior = {"neutral": 0.4, "surprise": 0.0, "fear": 0.1, "sadness": 0.2, "joy": 0.2}
    prior |= {"disgust": 0.0, "anger": 0.1}
    outputs = []
    for seed, parts in ((1, 1), (2, 5)):
        rows = split(table([*rest, *several]), seed, parts)
        config = make_flywheel(
            write_stage(tmp_path / f"score{seed}", rows),
            output=f"file://{tmp_path}/out{seed}",
            keep=0.9,
            useLabelPrior=True,
            maxShare=0.3,
        )
        dataset = config.spec.dataset.model_copy(update={"label_prior": prior})
        spec = config.spec.model_copy(update={"dataset": dataset})
        manifest, kept = run(config.model_copy(update={"spec": spec}))
        outputs.append((kept, manifest.metrics, manifest.report))
    assert outputs[0] == outputs[1]
    kept, metrics, report = outputs[0]
    firsts = [row for row in kept.to_pylist() if row["member"] == 0]
    assert any(len(row["consensus"]) == 2 for row in firsts)
    assert report["labels"] == Counter(e for row in firsts for e in row["consensus"])
    assert sum(report["labels"].values()) > metrics["keptGroups"]
    for role in (RECOGNIZER, RESPONDER):
        of_role = Counter(e for r in firsts if r["role"] == role for e in r["consensus"])
        assert max(of_role.values()) <= 0.3 * of_role.total()
        assert max(of_role.values()) <= report["balanceCap"][role]


def test_same_input_gives_the_same_manifest(
    make_flywheel: Configure, tmp_path: Path, groups: list[Group], scratch: Path
) -> None:
    score = write_stage(tmp_path / "score", split(table(groups), 1, 3))
    first = make_flywheel(score, output=f"file://{tmp_path}/out1")
    second = make_flywheel(score, output=f"file://{tmp_path}/out2")
    run(first)
    left = scratch / "003-flywheel" / "scratch"
    left.mkdir(parents=True)
    (left / "0").write_bytes(b"of a killed attempt")
    run(second)
    assert stored(first) == stored(second)


def test_flywheel_of_its_own_result_keeps_all(
    make_flywheel: Configure, tmp_path: Path, groups: list[Group]
) -> None:
    _, kept = run(make_flywheel(write_stage(tmp_path / "score", [table(groups)])))
    again = make_flywheel(write_stage(tmp_path / "kept", [kept]), output=f"file://{tmp_path}/out")
    assert run(again)[1].equals(kept)


def test_parts_are_bounded_and_hold_whole_groups() -> None:
    groups = pa.table(
        {"role": ["b", "a", "a", "a"], "group_id": ["x", "z", "y", "w"], "rows": [4, 6, 4, 4]}
    )
    wanted = assign_parts(groups, 8)
    assert wanted["group_id"].to_pylist() == ["w", "y", "z", "x"]
    assert wanted["part"].to_pylist() == [0, 0, 1, 1]
    many = pa.table({"role": ["a"] * 9_000, "group_id": range(9_000), "rows": [8] * 9_000})
    assert max(assign_parts(many, 8)["part"].to_pylist()) < flywheel_output.MAX_PARTS


@pytest.mark.parametrize("rows", [table([]), table([Group("a", rewards=(0.5, 0.5))])])
def test_nothing_reliable_is_an_answer(
    make_flywheel: Configure, tmp_path: Path, rows: pa.Table
) -> None:
    manifest, kept = run(make_flywheel(write_stage(tmp_path / "score", [rows])))
    assert kept.num_rows == 0
    assert manifest.metrics["kept"] == 0
    assert manifest.metrics["keptShare"] == 0
    assert manifest.report["labels"] == {}


def test_score_without_parts(make_flywheel: Configure, tmp_path: Path) -> None:
    manifest, kept = run(make_flywheel(write_stage(tmp_path / "score", [])))
    assert (manifest.rows, kept.num_rows) == (0, 0)


def earlier(folder: Path, generation: int, ids: list[str]) -> str:
    rows = table(Group(i, generation=generation) for i in ids)
    return write_stage(folder / f"flywheel{generation}", [rows], Stage.FLYWHEEL, generation)


def test_replay_goes_newest_first_up_to_the_quota(make_flywheel: Configure, tmp_path: Path) -> None:
    new = [Group(f"n{i}", label=label) for i, label in enumerate(["joy", "fear"] * 5)]
    score = write_stage(tmp_path / "score", [table(new)])
    replay = [
        earlier(tmp_path, 2, ["b0", "b1", "n0"]),  # n0 is there already
        earlier(tmp_path, 1, ["a0", "a1", "a2", "b1"]),
    ]
    manifest, kept = run(make_flywheel(score, replay, replay=0.4))
    ids = set(kept["group_id"].to_pylist())
    assert {"b0", "b1"} | {g.id for g in new} < ids
    assert kept.num_rows == 2 * len(ids) == 28
    assert len(ids & {"a0", "a1", "a2"}) == 2
    assert manifest.metrics["replayed"] == 4
    assert manifest.metrics["keptShare"] == 1
    store = open_store(StorageSpec(uri=f"file://{tmp_path}"))
    digests = [read_manifest(store, uri)[1] for uri in replay]
    assert manifest.report["replay"] == [
        {"manifest": digests[0], "groups": 2},
        {"manifest": digests[1], "groups": 2},
    ]


def test_no_replay_without_new_groups(make_flywheel: Configure, tmp_path: Path) -> None:
    score = write_stage(tmp_path / "score", [table([Group("a", rewards=(0.5, 0.5))])])
    manifest, kept = run(make_flywheel(score, [earlier(tmp_path, 2, ["b"])], replay=1.0))
    assert kept.num_rows == manifest.metrics["replayed"] == 0


def test_impossible_cap_is_refused(make_flywheel: Configure, tmp_path: Path) -> None:
    score = write_stage(tmp_path / "score", [table([Group("a")])])
    with pytest.raises(
        BadInput, match=r"`overrides.flywheel.maxShare` 0.1 cannot hold with 7 labels"
    ):
        run(make_flywheel(score, maxShare=0.1))


def broken_config(make_flywheel: Configure, tmp_path: Path, rows: pa.Table) -> StageConfig:
    return make_flywheel(write_stage(tmp_path / "score", [table([Group("x")]), rows]))


def test_truncated_part_is_named(make_flywheel: Configure, tmp_path: Path) -> None:
    config = broken_config(make_flywheel, tmp_path, table([Group("a")]))
    part = tmp_path / "score" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(BadInput, match=r"part-00001.parquet does not match .*manifest.json"):
        run(config)


def test_part_that_was_truncated_before_its_hash_is_named(
    make_flywheel: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = candidates.encode_table
    monkeypatch.setattr(candidates, "encode_table", lambda rows: whole(rows)[:-9])
    score = write_stage(tmp_path / "score", [table([Group("a")])])
    with pytest.raises(BadInput, match=r"part-00000.parquet is not a whole Parquet file"):
        run(make_flywheel(score))


def test_missing_part_is_named(make_flywheel: Configure, tmp_path: Path) -> None:
    config = broken_config(make_flywheel, tmp_path, table([Group("a")]))
    (tmp_path / "score" / "part-00001.parquet").unlink()
    with pytest.raises(BadInput, match=r"part-00001.parquet is missing"):
        run(config)


def test_missing_column_is_named(make_flywheel: Configure, tmp_path: Path) -> None:
    config = broken_config(make_flywheel, tmp_path, table([Group("a")]).drop(["reward"]))
    with pytest.raises(BadInput, match=r"part-00001.parquet: column `reward` is missing"):
        run(config)


def test_columns_that_came_later_are_filled_in(make_flywheel: Configure, tmp_path: Path) -> None:
    """A run that an earlier version scored is gone on with."""
    rows = [Group(f"g{i}", label="joy" if i % 2 else "anger") for i in range(8)]
    later = [column for column in ADDED if column in SCORED.names]
    before = write_stage(tmp_path / "before", [table(rows).drop(later)])
    manifest, kept = run(make_flywheel(before))
    assert manifest.metrics["keptGroups"] > 0
    assert kept.column("views").to_pylist() == [[]] * kept.num_rows
    assert kept.column("confidence").to_pylist() == [1.0] * kept.num_rows


def test_column_of_another_type_is_named(make_flywheel: Configure, tmp_path: Path) -> None:
    rows = table([Group("a")])
    index = rows.column_names.index("reward")
    rows = rows.set_column(index, "reward", rows["reward"].cast(pa.string()))
    config = broken_config(make_flywheel, tmp_path, rows)
    with pytest.raises(BadInput, match=r"column `reward` is string, not float"):
        run(config)


def test_rows_that_are_there_twice_are_named(make_flywheel: Configure, tmp_path: Path) -> None:
    rows = table([Group("a"), Group("b", label="fear")])
    config = make_flywheel(write_stage(tmp_path / "score", [rows, rows]))
    advice = rf"delete the folder file://{tmp_path}/score, and run the same command again$"
    with pytest.raises(BadInput, match=rf"group a has member 0 twice: .*: {advice}"):
        run(config)


def test_without_replay_a_damaged_flywheel_of_another_generation_is_not_read(
    make_flywheel: Configure, tmp_path: Path
) -> None:
    rows = [Group(f"g{i}", label="joy" if i % 2 else "anger") for i in range(8)]
    score = write_stage(tmp_path / "score", [table(rows)])
    config = make_flywheel(score, replay=0.5)
    uri = config.output.replace("/003/", "/002/") + "/manifest.json"
    config = config.model_copy(update={"replay": [uri]})
    advice = r"restore it from a backup, or set `overrides\.flywheel\.replay: 0`$"
    with pytest.raises(BadInput, match=rf"^{uri} does not exist: {advice}"):
        run(config)
    without = make_flywheel(score, replay=0.0).spec
    manifest, _ = run(config.model_copy(update={"spec": without}))
    assert manifest.metrics["replayed"] == 0


def test_command_exits_2_with_one_line(
    make_flywheel: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_flywheel(f"file://{tmp_path}/none/manifest.json")
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json(by_alias=True))
    assert PROGRAM.main(["--config", str(path)]) == ExitCode.BAD_INPUT
    assert "none/manifest.json does not exist" in capsys.readouterr().out


def test_s3_gives_the_same_parts(
    make_flywheel: Configure,
    make_spec: Callable[..., EvolutionSpec],
    tmp_path: Path,
    groups: list[Group],
    s3: S3Server,
) -> None:
    tables = split(table(groups), 1, 3)
    on_disk, _ = run(make_flywheel(write_stage(tmp_path / "score", tables)))
    storage = s3.storage(tmp_path.name)
    store = open_store(storage)
    for path in sorted((tmp_path / "score").iterdir()):
        store.put(f"{storage.uri}/score/{path.name}", path.read_bytes())
    config = make_flywheel(f"{storage.uri}/score/manifest.json", output=f"{storage.uri}/out")
    spec = config.spec.model_copy(update={"storage": storage})
    on_s3, _ = run(config.model_copy(update={"spec": spec}))
    assert on_s3.parts == on_disk.parts
    assert on_s3.metrics == on_disk.metrics


def test_daft_reads_s3_by_itself_as_a_cluster_does(tmp_path: Path, s3: S3Server) -> None:
    storage = s3.storage(tmp_path.name)
    rows = table([Group("a"), Group("b")])
    uri = f"{storage.uri}/score/part-00000.parquet"
    open_store(storage).put(uri, encode_table(rows))
    read = ScoredRows([uri], "0" * 64, storage).read()
    assert read.to_arrow().cast(SCORED).equals(rows)
