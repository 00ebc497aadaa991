"""The options of a warm start are declared once: the command and the studies use the same type."""

from __future__ import annotations

import shlex

import pytest

from selfemo_api.spec import Precision, View
from selfemo_jobs.base_models.__main__ import parser
from selfemo_jobs.base_models.warm_start_options import arguments_of, options_from
from selfemo_jobs.stages.warmstart.options import TrainingOptions, WarmStartOptions
from selfemo_study.study_config import WarmStart as StudyWarmStart

REQUIRED = shlex.split(
    "warm-start --model m --to o --source s --format JSONL --labels joy --share 0.1"
)
ALL_SET = WarmStartOptions(
    steps=7,
    batch_size=3,
    learning_rate=2e-5,
    responder_share=0.5,
    freeze_embeddings=True,
    views=[View(past=1), View(past=2, future=3)],
    train_layers=2,
    precision=Precision.BFLOAT16,
    prompts="chat-v1",
    past=4,
    max_prompt_tokens=64,
    seed=9,
)


def parse(arguments: list[str]) -> WarmStartOptions:
    return options_from(parser().parse_args([*REQUIRED, *arguments]))


def test_the_command_has_the_defaults_of_the_type() -> None:
    assert parse([]) == WarmStartOptions()


def test_the_command_has_an_option_for_each_field() -> None:
    defaults = WarmStartOptions()
    for name in WarmStartOptions.model_fields:
        assert getattr(ALL_SET, name) != getattr(defaults, name), f"{name} is not tested"
    assert parse(arguments_of(ALL_SET)) == ALL_SET


def test_the_help_gives_each_fields_description(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["warm-start", "--help"])
    # argparse breaks lines, also after a hyphen
    shown = "".join(capsys.readouterr().out.split())
    for name, field in WarmStartOptions.model_fields.items():
        assert field.description, name
        assert "".join(field.description.split()) in shown, name


def test_a_study_uses_the_type_as_it_is() -> None:
    own = {"source", "share", "rounds"}
    assert StudyWarmStart.model_fields.keys() - own == TrainingOptions.model_fields.keys()
    for name, field in TrainingOptions.model_fields.items():
        assert StudyWarmStart.model_fields[name].default == field.default
