"""Damage of a stored result: which stage has to run again, and that doing so helps.

The stages are small ones, of which each writes what it read from its parent.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from selfemo_api.contract import ENV_SHARD, ENV_TERMINATION_LOG, ENV_WORK, ExitCode, StageConfig
from selfemo_api.results import FailureMessage, ShardResult, StageResult, decode_message
from selfemo_api.spec import EvolutionSpec
from selfemo_api.stages import Stage
from selfemo_jobs.errors import BadInput, DamagedResult, NoCredentials, Unavailable
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import MANIFEST, Manifest, read_part, wrong_rows
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.store.folder import file_path

CHAIN = (Stage.SELF_PLAY, Stage.SCORE, Stage.FLYWHEEL)
RELEVANT = {
    Stage.SELF_PLAY: ("selfPlay.temperature",),
    Stage.SCORE: ("reward.smoothing",),
    Stage.FLYWHEEL: ("flywheel.minReward",),
}


def work(context: StageContext) -> StageOutput:
    """Write a part with the stage's name around what the parent wrote."""
    content = b""
    for uri in context.config.parents.values():
        manifest = context.parent(CHAIN[CHAIN.index(context.config.stage) - 1])[1]
        content = read_part(context.store, uri, manifest.parts[0])
    text = context.config.stage.slug.encode() + b"(" + content + b")"
    stored = context.load_part("part.txt", bytes)
    return StageOutput([stored[0] if stored else context.put_part("part.txt", text)], rows=1)


class Generation:
    """The stages of a generation, and what their results are."""

    def __init__(self, make_config: Callable[..., StageConfig], spec: EvolutionSpec) -> None:
        self._make_config = make_config
        self.spec = spec
        self.ran: list[Stage] = []

    def config(self, stage: Stage, **fields: object) -> StageConfig:
        index = CHAIN.index(stage)
        parents = {}
        if index:
            parent = CHAIN[index - 1]
            parents = {
                parent.slug: f"{self._make_config(parent, spec=self.spec).output}/{MANIFEST}"
            }
        return self._make_config(stage, spec=self.spec, parents=parents, **fields)

    def program(self, stage: Stage) -> StageProgram:
        def watched(context: StageContext) -> StageOutput:
            self.ran.append(stage)
            return work(context)

        return StageProgram(stage=stage, work=watched, relevant=RELEVANT[stage])

    def run(self, stage: Stage, **fields: object) -> StageResult:
        result = self.program(stage).run(self.config(stage, **fields))
        assert isinstance(result, StageResult)
        return result

    def recover(self, failed: Stage, error: DamagedResult) -> StageResult:
        """Go back to the damaged stage and run all stages up to the failed one, as planned runs do.

        A stage may find damage further back.
        """
        result = None
        for stage in CHAIN[CHAIN.index(error.stage) : CHAIN.index(failed) + 1]:
            try:
                result = self.run(stage, repair=True)
            except DamagedResult as deeper:
                assert CHAIN.index(deeper.stage) < CHAIN.index(stage)
                result = self.recover(stage, deeper)
        assert result is not None
        return result

    def folder(self, stage: Stage) -> Path:
        return file_path(self.config(stage).output)

    def manifest(self, stage: Stage) -> Manifest:
        return Manifest.model_validate_json((self.folder(stage) / MANIFEST).read_bytes())

    def part(self, stage: Stage) -> Path:
        return self.folder(stage) / self.manifest(stage).parts[0].path


@pytest.fixture
def generation(
    make_config: Callable[..., StageConfig],
    make_spec: Callable[..., EvolutionSpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Generation:
    """A generation whose stages have all run."""
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    monkeypatch.delenv(ENV_SHARD, raising=False)
    generation = Generation(make_config, make_spec())
    for stage in CHAIN:
        generation.run(stage)
    assert generation.part(Stage.FLYWHEEL).read_bytes() == b"flywheel(score(selfplay()))"
    generation.ran.clear()
    return generation


def remove_manifest(generation: Generation) -> str:
    (generation.folder(Stage.SCORE) / MANIFEST).unlink()
    return r"/score/manifest\.json does not exist"


def cut_manifest(generation: Generation) -> str:
    manifest = generation.folder(Stage.SCORE) / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:-20])
    return r"/score/manifest\.json is not a manifest of selfemo\.[^:]*"


def remove_part(generation: Generation) -> str:
    generation.part(Stage.SCORE).unlink()
    return r"/score/part-[0-9a-f]{12}\.txt is missing, though .*/score/manifest\.json lists it"


def change_part(generation: Generation) -> str:
    generation.part(Stage.SCORE).write_bytes(b"other")
    return r"/score/part-[0-9a-f]{12}\.txt does not match .*/score/manifest\.json \(sha256 .*\)"


def remove_folder(generation: Generation) -> str:
    shutil.rmtree(generation.folder(Stage.SCORE))
    return r"/score/manifest\.json does not exist"


def remove_generation(generation: Generation) -> str:
    shutil.rmtree(generation.folder(Stage.SCORE).parent)
    return r"/score/manifest\.json does not exist"


DAMAGE = {
    f.__name__: f
    for f in (
        *(remove_manifest, cut_manifest, remove_part, change_part),
        *(remove_folder, remove_generation),
    )
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_the_damaged_stage_is_named_and_running_it_again_helps(
    generation: Generation,
    damage: Callable[[Generation], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.rmtree(generation.folder(Stage.FLYWHEEL))
    problem = damage(generation)
    log = tmp_path / "termination"
    monkeypatch.setenv(ENV_TERMINATION_LOG, str(log))
    file = tmp_path / "config.json"
    file.write_text(generation.config(Stage.FLYWHEEL).model_dump_json(by_alias=True))
    code = generation.program(Stage.FLYWHEEL).main(["--config", str(file)])
    assert code == ExitCode.DAMAGED_RESULT
    message = decode_message(log.read_text())
    assert isinstance(message, FailureMessage)
    assert (message.kind, message.damaged) == ("DamagedResult", Stage.SCORE)
    with pytest.raises(DamagedResult, match=rf"{problem}: Score has to run again$") as caught:
        generation.run(Stage.FLYWHEEL)
    assert message.error == str(caught.value)
    generation.recover(Stage.FLYWHEEL, caught.value)
    assert generation.part(Stage.FLYWHEEL).read_bytes() == b"flywheel(score(selfplay()))"
    assert generation.run(Stage.FLYWHEEL).reused


def test_a_whole_result_answers_where_it_is_verified(generation: Generation) -> None:
    for stage in CHAIN:
        assert generation.run(stage, repair=True).reused
    assert generation.ran == []


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_stage_makes_its_own_damaged_result_again(
    generation: Generation, damage: Callable[[Generation], str]
) -> None:
    before = generation.manifest(Stage.SCORE)
    damage(generation)
    if damage is remove_generation:
        generation.run(Stage.SELF_PLAY)
    result = generation.run(Stage.SCORE, repair=True)
    assert not result.reused
    assert generation.manifest(Stage.SCORE) == before
    assert generation.part(Stage.SCORE).read_bytes() == b"score(selfplay())"


def test_without_repair_a_stage_answers_from_its_manifest(generation: Generation) -> None:
    """Nothing reads every part of a whole run again for each question about it."""
    generation.part(Stage.SCORE).unlink()
    assert generation.run(Stage.SCORE).reused


def test_a_repairing_stage_with_whole_parts_names_the_parent_that_is_gone(
    generation: Generation,
) -> None:
    """Without repair it answers, because nothing else reads that parent any more."""
    (generation.folder(Stage.SELF_PLAY) / MANIFEST).unlink()
    assert generation.run(Stage.SCORE).reused
    with pytest.raises(DamagedResult, match=r"/selfplay/manifest\.json does not exist") as caught:
        generation.run(Stage.SCORE, repair=True)
    assert caught.value.stage is Stage.SELF_PLAY
    assert generation.ran == []


@pytest.mark.parametrize("repair", [False, True])
def test_a_result_of_an_earlier_result_of_the_parent_is_made_again(
    generation: Generation, repair: bool
) -> None:
    generation.spec = generation.spec.model_copy(
        update={"self_play": generation.spec.self_play.model_copy(update={"temperature": 0.5})}
    )
    shutil.rmtree(generation.folder(Stage.SELF_PLAY))
    generation.run(Stage.SELF_PLAY)
    before = generation.manifest(Stage.SCORE).parents
    assert not generation.run(Stage.SCORE, repair=repair).reused
    assert generation.manifest(Stage.SCORE).parents != before
    assert generation.run(Stage.SCORE, repair=repair).reused


def test_deleting_the_folder_of_a_result_of_other_settings_helps(generation: Generation) -> None:
    changes = {"self_play": generation.spec.self_play.model_copy(update={"temperature": 0.5})}
    generation.spec = generation.spec.model_copy(update=changes)
    with pytest.raises(BadInput, match="was made with other settings") as caught:
        generation.run(Stage.SELF_PLAY)
    folder = str(caught.value).rpartition("or delete the folder ")[2]
    shutil.rmtree(file_path(folder))
    assert not generation.run(Stage.SELF_PLAY).reused


def test_a_repairing_stage_makes_a_result_of_other_settings_again(generation: Generation) -> None:
    """The spec was edited after the stage had ended, and a later stage found it damaged."""
    changes = {"self_play": generation.spec.self_play.model_copy(update={"temperature": 0.5})}
    generation.spec = generation.spec.model_copy(update=changes)
    assert not generation.run(Stage.SELF_PLAY, repair=True).reused
    assert generation.manifest(Stage.SELF_PLAY).config["selfPlay.temperature"] == 0.5


def test_rows_that_a_stage_cannot_use_go_with_the_folder_that_the_message_names(
    generation: Generation,
) -> None:
    """The hashes are right, so that the stage before would answer with the same rows."""

    def refuse(context: StageContext) -> StageOutput:
        uri, manifest = context.parent(Stage.SCORE)
        if b"selfplay" in read_part(context.store, uri, manifest.parts[0]):
            raise wrong_rows("row 1 is wrong", uri)
        return work(context)

    shutil.rmtree(generation.folder(Stage.FLYWHEEL))
    program = dataclasses.replace(generation.program(Stage.FLYWHEEL), work=refuse)
    with pytest.raises(DamagedResult) as caught:
        program.run(generation.config(Stage.FLYWHEEL))
    assert caught.value.stage is Stage.SCORE
    message = str(caught.value)
    assert message.startswith("row 1 is wrong: delete the folder ")
    folder = message.partition("delete the folder ")[2].partition(", and run the same command")[0]
    shutil.rmtree(file_path(folder))
    with pytest.raises(DamagedResult) as caught:
        program.run(generation.config(Stage.FLYWHEEL))
    generation.recover(Stage.FLYWHEEL, caught.value)
    assert generation.ran == [*CHAIN]


def test_damage_of_another_generation_is_bad_input_with_what_helps(
    generation: Generation, make_config: Callable[..., StageConfig]
) -> None:
    earlier = f"{make_config(Stage.FLYWHEEL, generation=0, spec=generation.spec).output}/{MANIFEST}"
    model = f"{make_config(Stage.TRAIN, generation=0, spec=generation.spec).output}/{MANIFEST}"

    def reading(uri: str) -> Callable[[StageContext], StageOutput]:
        def read(context: StageContext) -> StageOutput:
            raise wrong_rows("the file is damaged", uri)

        return read

    helps: Mapping[str, str] = {
        earlier: "restore it from a backup, or set `overrides.flywheel.replay: 0`",
        model: "restore it from a backup, or start another evolution whose `model.resumeFrom` "
        "names a generation with a whole model",
        earlier.replace("flywheel", "evaluate"): "restore it from a backup, or start another "
        "evolution",
    }
    shutil.rmtree(generation.folder(Stage.FLYWHEEL))
    for uri, advice in helps.items():
        program = dataclasses.replace(generation.program(Stage.FLYWHEEL), work=reading(uri))
        with pytest.raises(BadInput) as caught:
            program.run(generation.config(Stage.FLYWHEEL, replay=[earlier]))
        assert str(caught.value) == f"the file is damaged: {advice}"


def test_shards_of_other_content_of_a_source_are_not_merged(
    make_spec: Callable[..., EvolutionSpec],
    make_config: Callable[..., StageConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The source was corrected after the first shard had ended."""
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    config = make_config(Stage.SELF_PLAY, spec=make_spec(selfPlay={"shards": 2}))
    content = "a"

    def play(context: StageContext) -> StageOutput:
        inputs = {"source:talk": content}
        context = context.with_inputs(inputs)
        path = f"part-{context.shard}.txt"
        stored = context.load_part(path, bytes)
        part = stored[0] if stored else context.put_part(path, content.encode())
        return StageOutput([part], rows=1, inputs=inputs)

    def merge(outputs: object) -> StageOutput:
        parts = [part for output in outputs for part in output.parts]  # type: ignore[attr-defined]
        return StageOutput(parts, rows=len(parts))

    program = StageProgram(stage=Stage.SELF_PLAY, work=play, relevant=(), merge=merge)

    def run(shard: int) -> StageResult | ShardResult:
        monkeypatch.setenv(ENV_SHARD, str(shard))
        return program.run(config)

    assert isinstance(run(0), ShardResult)
    content = "b"
    assert isinstance(run(1), ShardResult), "parts of two contents were merged"
    assert isinstance(run(0), StageResult)
    folder = file_path(config.output)
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    assert {(folder / part.path).read_bytes() for part in manifest.parts} == {b"b"}


@pytest.mark.parametrize(
    ("stage", "error"), [(Stage.CHECK, NoCredentials), (Stage.SELF_PLAY, Unavailable)]
)
def test_credentials_that_the_check_had_may_be_back_later(
    stage: Stage, error: type[Exception], make_config: Callable[..., StageConfig]
) -> None:
    def without(_context: StageContext) -> StageOutput:
        raise NoCredentials("s3://bucket/run: Unable to locate credentials: set them")

    program = StageProgram(stage=stage, work=without, relevant=())
    with pytest.raises(error, match="Unable to locate credentials") as caught:
        program.run(make_config(stage))
    assert caught.type is error
