"""The state folder of the commands that use a model is that of `selfemo run`."""

from __future__ import annotations

import pytest

from selfemo_jobs.use_commands.__main__ import COMMANDS, parser

ARGUMENTS = {
    "respond": ["--emotion", "joy"],
    "export": ["target"],
    "compare": ["other"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_environment_names_the_state_folder(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFEMO_STATE", "/runs")
    words = [command, "evolution.yaml", *ARGUMENTS.get(command, [])]
    assert str(parser([command]).parse_args(words).state) == "/runs"
