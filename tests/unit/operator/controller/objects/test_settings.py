"""The operator's settings: each option of the command line sets its field."""

from __future__ import annotations

from dataclasses import MISSING
from typing import Any

import pytest
import typer
import typer.main
from typer.testing import CliRunner

from selfemo_operator.__main__ import main
from selfemo_operator.controller.objects.settings import (
    DeclaredSetting,
    JobSettings,
    Settings,
    declared_settings,
    settings_from,
)

OPTIONS = [declared for declared in declared_settings() if declared.setting.flag]
#: A value of each type that differs from all defaults, and the arguments that set it.
VALUES: dict[Any, tuple[Any, list[str]]] = {
    str: ("debug", ["debug"]),
    int: (61, ["61"]),
    float: (2.5, ["2.5"]),
    bool: (True, []),
    tuple[str, ...]: (("a", "b"), ["a", "--namespace", "b"]),
}


def program() -> typer.Typer:
    app = typer.Typer()
    app.command()(main)
    return app


def parse(*arguments: str) -> dict[str, Any]:
    """Return the value of each parameter of the operator's command line."""
    context = typer.main.get_command(program()).make_context("operator", list(arguments))
    return context.params


def field_of(settings: Settings, path: tuple[str, ...]) -> Any:
    value: Any = settings
    for name in path:
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("declared", OPTIONS, ids=lambda declared: declared.setting.flag)
def test_each_option_sets_its_field(declared: DeclaredSetting) -> None:
    value, arguments = VALUES[declared.type]
    image = [] if declared.default is MISSING else ["--jobs-image", "jobs:1"]
    settings = settings_from(parse(*image, declared.setting.flag, *arguments))
    assert field_of(settings, declared.path) == value
    assert value != declared.default


def test_without_options_each_field_has_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "pod-7")
    settings = settings_from(parse("--jobs-image", "jobs:1"))
    assert settings == Settings(jobs=JobSettings(image="jobs:1"))
    assert settings.identity == "pod-7"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--jobs-image", "jobs:1", "--concurrency", "0"],
        ["--jobs-image", "jobs:1", "--concurrency", "65"],
        ["--jobs-image", "jobs:1", "--job-ttl-seconds", "59"],
        ["--jobs-image", "jobs:1", "--resync-seconds", "0.4"],
        ["--jobs-image", "jobs:1", "--speed", "3"],
    ],
    ids=" ".join,
)
def test_wrong_options_are_rejected(arguments: list[str]) -> None:
    result = CliRunner().invoke(program(), arguments)
    assert result.exit_code == 2
    assert "Error" in result.output


def test_every_setting_is_described_and_has_a_source() -> None:
    for declared in declared_settings():
        assert declared.setting.help.endswith(".")
        assert declared.setting.flag or declared.setting.env
