from __future__ import annotations

import itertools
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from selfemo_api.contract import ExitCode
from selfemo_api.dataset_labels import MELD
from selfemo_api.model_description import (
    DESCRIPTION_FILE,
    Decoding,
    ModelDescription,
    PromptSetting,
)
from selfemo_api.spec import Context, Engine
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.description_file import encode_description
from selfemo_jobs.prompts.prompt_texts import built_in_texts
from selfemo_jobs.use_commands.__main__ import main
from selfemo_jobs.use_commands.serve import check_vllm_arguments


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    texts = built_in_texts("compact-v1")
    setting = PromptSetting(name="compact-v1", chat=False, texts=dict(texts.texts))
    context = Context(past=2, future=0)
    description = ModelDescription(labels=list(MELD), context=context, prompts=setting)
    (folder / DESCRIPTION_FILE).write_bytes(encode_description(description))
    return folder


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of temporary files. The served folder remains in it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the calls that would have replaced this process."""
    calls: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize(("has_ipv6", "address"), [(True, "::"), (False, "0.0.0.0")])
def test_all_addresses(
    has_ipv6: bool,
    address: str,
    model: Path,
    started: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("socket.has_dualstack_ipv6", lambda: has_ipv6)
    main(["serve", str(model), "--host", "all"])
    ((_, command, _),) = started
    assert command[command.index("--host") + 1] == address


@pytest.mark.parametrize("port", ["65536", "-1", "http", "8000.0"])
def test_a_port_that_does_not_exist_is_an_error(
    port: str, model: Path, started: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(model), f"--port={port}"]) == 2
    assert not started
    expected = f"argument --port: {port}: a port is a number from 0 to 65535"
    assert expected in capsys.readouterr().err


def test_starts_vllm(
    model: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    monkeypatch.delenv("VLLM_NO_USAGE_STATS", raising=False)
    monkeypatch.setattr("tempfile.mkdtemp", lambda prefix: str(tmp_path / prefix))
    monkeypatch.setattr("selfemo_jobs.use_commands.serve._is_cpu", lambda: True)
    words = ["serve", str(model), "--port", "9", "--name", "mine", "--", "--dtype", "bfloat16"]
    main(words)
    ((_, command, environment),) = started
    folder = str(tmp_path / "selfemo-serve-")
    assert command[1] == "-m"
    assert command[2:5] in (
        ["vllm.entrypoints.cli.main", "serve", folder],
        ["vllm.entrypoints.launchers.api_server.entry", "--model", folder],
    )
    options = dict(itertools.pairwise(command))
    assert options["--served-model-name"] == "mine"
    assert (options["--host"], options["--port"]) == ("127.0.0.1", "9")
    assert options["--chat-template"] == f"{folder}/chat_template.jinja"
    assert options["--override-generation-config"] == '{"temperature": 0}'
    assert command[-2:] == ["--dtype", "bfloat16"]
    assert command[command.index("--dtype") + 1] == "float32"  # vLLM takes the last one
    assert not any("trust" in word for word in command)
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "7"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["PATH"] == os.environ["PATH"]


def test_arguments_are_those_of_an_evaluation_by_vllm(
    model: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model / DESCRIPTION_FILE
    description = ModelDescription.model_validate_json(path.read_bytes())
    arguments = {"dtype": "bfloat16", "trust_remote": True, "hos": "0.0.0.0"}
    decoding = Decoding(engine=Engine.VLLM, engine_args=arguments)
    path.write_bytes(encode_description(description.model_copy(update={"decoding": decoding})))
    monkeypatch.setattr("selfemo_jobs.use_commands.serve._is_cpu", lambda: True)
    main(["serve", str(model)])
    ((_, command, _),) = started
    assert command.index("--dtype=bfloat16") > command.index("--dtype")  # vLLM takes the last one
    assert not any("trust" in word or word.startswith("--hos=") for word in command)


def test_prints_the_command_and_the_template(
    model: Path,
    started: list[Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("selfemo_jobs.use_commands.serve._is_cpu", lambda: False)
    assert main(["serve", str(model), "--print-command", "--", "--seed=1"]) == 0
    line = capsys.readouterr().out
    words = shlex.split(line)
    assert words[0] == "VLLM_NO_USAGE_STATS=1"
    assert words[-1] == "--seed=1"
    assert "--enforce-eager" not in words
    assert '{"temperature": 0}' in words
    template = Path(words[words.index("--chat-template") + 1]).read_text(encoding="utf-8")
    assert main(["serve", str(model), "--print-template"]) == 0
    assert capsys.readouterr().out == f"{template}\n"
    assert not started


def test_a_model_without_a_description(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tiny_model)]) == ExitCode.BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith(f"selfemo serve: {tiny_model.as_uri()} has no selfemo.json")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--trust-remote-code", "runs code from the model, which selfemo never does"),
        ("--trust_remote_code", "runs code from the model"),
        ("--trust-rem=true", "runs code from the model"),
        ("--trust-request-chat-template", "selfemo sets vLLM's `--trust-request-chat-template`"),
        ("--chat_template=x", "selfemo sets vLLM's `--chat-template` itself"),
        ("--conf", "selfemo sets vLLM's `--config`"),
        ("--override-generation-config.temperature", "sets vLLM's `--override-generation-config`"),
    ],
)
def test_arguments_of_vllm_that_are_refused(word: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_vllm_arguments(["--dtype", "float32", word, "x"])


def test_arguments_of_vllm_that_are_passed_on() -> None:
    check_vllm_arguments(
        ["--tokenizer-pool-size", "--config-format", "--api-server-count", "-O", "--", "x"]
    )


def test_vllm_is_not_installed(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["serve", str(model)]) == ExitCode.BAD_INPUT
    assert "vLLM is not installed: install the `vllm` extra" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--api-key", "--api_key=secret", "--api-k=secret"])
def test_a_key_among_the_arguments_is_refused(word: str) -> None:
    with pytest.raises(BadInput, match="set the VLLM_API_KEY environment variable") as caught:
        check_vllm_arguments([word])
    assert "secret" not in str(caught.value)


def test_who_may_use_the_server(
    model: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    monkeypatch.setenv("SELFEMO_SERVE_HOSTS", "earlier.example")
    main(["serve", str(model), "--allow-host", "a.example", "--allow-host", "b.example"])
    main(["serve", str(model), "--host", "all"])
    (_, here, environment), (_, everywhere, _) = started
    checks = "--middleware=selfemo_jobs.use_commands.request_checks"
    assert [word for word in here if word.startswith("--middleware")] == [
        f"{checks}.KnownHosts",
        f"{checks}.RequiredKey",
    ]
    assert [w for w in everywhere if w.startswith("--middleware")] == [f"{checks}.RequiredKey"]
    assert "--allowed-origins=[]" in here
    assert environment["SELFEMO_SERVE_HOSTS"] == "a.example,b.example"
    assert main(["serve", str(model), "--host", "all", "--allow-host", "a.example"]) == 2
    assert len(started) == 2
