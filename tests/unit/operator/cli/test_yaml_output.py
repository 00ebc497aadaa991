"""YAML that a command prints: kubectl reads each text as this text."""

from __future__ import annotations

from tests.unit.api.schema.test_plain_scalars import READ_AS

from selfemo_api.schema.strict_yaml import parse_yaml
from selfemo_operator.cli.yaml_output import yaml_text


def test_generations_are_texts_in_annotations() -> None:
    annotations = {"selfemo.dev/generation": [f"{number:03}" for number in range(1000)]}
    assert parse_yaml(yaml_text([annotations]))[0] == annotations


def test_any_text_is_read_as_itself() -> None:
    texts = {text: text for text in READ_AS}
    assert parse_yaml(yaml_text([texts]))[0] == texts
