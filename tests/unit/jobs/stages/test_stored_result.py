"""A stored result answers for the settings it was made with, and for no others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.jobs.stages.spec_fields import all_covering, leaf_fields, with_another_value
from tests.unit.jobs.stages.stage_programs import each_answering_program

from selfemo_api.contract import ENV_SHARD, ENV_WORK, StageConfig
from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec
from selfemo_jobs.errors import BadInput
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.fingerprint import config_fingerprint
from selfemo_jobs.runtime.manifest import MANIFEST
from selfemo_jobs.runtime.program import StageProgram

MODEL = "file:///models/first"

pytestmark = each_answering_program


@pytest.fixture
def full_spec(make_spec: Callable[..., EvolutionSpec]) -> EvolutionSpec:
    """A spec in which every optional part is set, so that it has every leaf field."""
    file = {"uri": "file:///dialogues.jsonl", "format": "JSONL"}
    uses = {
        **{"train": "SelfPlay", "more": "SelfPlay", "dev": "Evaluation", "test": "Evaluation"},
        **{"gold": "Labeled", "more-gold": "Labeled"},
    }
    return make_spec(
        dataset={"sources": [{"name": name, "use": use, **file} for name, use in uses.items()]},
        reward={"judge": {"views": [{"past": 1}]}},
        training={"lora": {}},
        stopping={"goal": 0.9},
        storage={"credentialsSecretRef": {"name": "keys"}},
        queue={"name": "queue"},
        model={"resumeFrom": "file:///first/manifest.json"},
        podTemplate=[{"stages": ["Train"], "template": {"image": "first"}}],
    )


@pytest.fixture
def config(
    program: StageProgram,
    full_spec: EvolutionSpec,
    make_config: Callable[..., StageConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> StageConfig:
    """The configuration of a stage whose result is stored."""
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    monkeypatch.delenv(ENV_SHARD, raising=False)
    config = make_config(program.stage, spec=full_spec, policy=MODEL, judge=MODEL)
    made = dataclasses.replace(program, work=lambda _context: StageOutput(rows=3)).run(config)
    assert isinstance(made, StageResult) and not made.reused
    return config


def refuse_to_work(_context: StageContext) -> StageOutput:
    raise AssertionError("the stage ran again")


def test_a_changed_setting_refuses_the_stored_result_and_is_named(
    program: StageProgram, config: StageConfig
) -> None:
    """Each field of the spec is changed alone."""
    stored = dataclasses.replace(program, work=refuse_to_work)
    refused = set()
    changes = [
        (path, relevant)
        for path in leaf_fields()
        for relevant in all_covering(path, program.relevant) or [None]
    ]
    for path, relevant in changes:
        spec = with_another_value(config.spec, path, relevant)
        if relevant is None:
            assert stored.run(config.model_copy(update={"spec": spec})).reused, path
            continue
        refused.add(relevant)
        with pytest.raises(BadInput) as caught:
            stored.run(config.model_copy(update={"spec": spec}))
        assert str(caught.value) == (
            f"{config.output}/{MANIFEST} was made with other settings (`{relevant}`): use another "
            f"`storage.uri` or name, or delete the folder {config.output}"
        )
    assert refused == set(program.relevant)


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("policy_uri", "file:///models/second", "policyUri"),
        ("judge_uri", "file:///models/second", "judgeUri"),
        ("seed", 99, "seed"),
        ("generation", 2, "generation"),
        ("replay", ["file:///earlier/manifest.json"], "replay"),
    ],
)
def test_another_model_or_seed_refuses_the_stored_result(
    program: StageProgram, config: StageConfig, field: str, value: object, name: str
) -> None:
    with pytest.raises(BadInput, match=rf"was made with other settings \(`{name}`\)"):
        program.run(config.model_copy(update={field: value}))


def test_all_changed_settings_are_named(program: StageProgram, config: StageConfig) -> None:
    spec = config.spec
    for path in leaf_fields():
        for relevant in all_covering(path, program.relevant):
            spec = with_another_value(spec, path, relevant)
    with pytest.raises(BadInput) as caught:
        program.run(config.model_copy(update={"spec": spec}))
    named = ", ".join(f"`{path}`" for path in sorted(program.relevant))
    assert f"was made with other settings ({named}): " in str(caught.value)


def test_the_same_run_elsewhere_has_the_same_settings(
    program: StageProgram, config: StageConfig
) -> None:
    """Places below the run's own storage are compared relative to it."""
    store = config.spec.storage.uri
    moved = f"{store}-moved"
    Path(store.removeprefix("file://")).rename(moved.removeprefix("file://"))
    text = config.model_dump_json(by_alias=True).replace(f"{store}", moved)
    assert program.run(StageConfig.model_validate_json(text)).reused


def test_a_folder_whose_name_begins_like_the_storage_is_elsewhere(config: StageConfig) -> None:
    beside = f"{config.spec.storage.uri}-models/first"
    below = f"{config.spec.storage.uri}/models/first"
    changes = {"policy_uri": beside, "judge_uri": below}
    settings = config_fingerprint(config.model_copy(update=changes), ())
    assert settings["policyUri"] == beside
    assert settings["judgeUri"] == "storage:/models/first"
