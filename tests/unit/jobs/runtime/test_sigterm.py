"""SIGTERM ends a program as interrupted, whatever was active when it arrived."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from selfemo_api.contract import ENV_TERMINATION_LOG, ExitCode
from selfemo_jobs.errors import BadInput, Terminated
from selfemo_jobs.models.fetch import load_model, load_tokenizer
from selfemo_jobs.runtime.program import run_program
from selfemo_jobs.runtime.sigterm import ENDED, RaisingSigterm
from selfemo_jobs.stages.check.light_tokenizer import read_tokenizer


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def sigterm(*_arguments: object, **_options: object) -> None:
    """Stand for a function of a library while SIGTERM arrives."""
    os.kill(os.getpid(), signal.SIGTERM)


def swallowed_by_a_library(_path: Path) -> None:
    try:
        sigterm()
    except Exception as error:
        raise BadInput("the tokenizer cannot be read") from error


def turned_into_an_error(_path: Path) -> None:
    try:
        sigterm()
    except BaseException as error:
        raise BadInput("the tokenizer cannot be read") from error


def ignored_then_an_error(_path: Path) -> None:
    class Finalized:
        __del__ = sigterm

    Finalized()  # Python ignores the error of its finalizer
    raise RuntimeError("a connection was closed")


def raised(_path: Path) -> None:
    sigterm()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "work", [raised, swallowed_by_a_library, turned_into_an_error, ignored_then_an_error]
)
def test_sigterm_wins(
    work: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = tmp_path / "message"
    monkeypatch.setenv(ENV_TERMINATION_LOG, str(message))
    code = run_program("check", "module", work, ["--config", str(tmp_path / "config.json")])
    assert code == ExitCode.TERMINATED
    failure = json.loads(message.read_text())
    assert (failure["kind"], failure["error"]) == ("Unavailable", ENDED)


def test_an_error_without_sigterm_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def panic(_path: Path) -> None:
        class Panic(BaseException):
            """As the panic of a library in Rust."""

        raise Panic("index out of bounds")

    message = tmp_path / "message"
    monkeypatch.setenv(ENV_TERMINATION_LOG, str(message))
    code = run_program("check", "module", panic, ["--config", str(tmp_path / "config.json")])
    assert code == ExitCode.INTERNAL
    assert json.loads(message.read_text())["error"] == "Panic: index out of bounds"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        Exception("I/O error: No space left on device (os error 28)"),  # as that of tokenizers
    ],
)
def test_a_full_disk_is_for_a_person(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(_path: Path) -> None:
        raise error

    message = tmp_path / "message"
    monkeypatch.setenv(ENV_TERMINATION_LOG, str(message))
    code = run_program("check", "module", work, ["--config", str(tmp_path / "config.json")])
    assert code == ExitCode.BAD_INPUT
    failure = json.loads(message.read_text())
    assert failure["kind"] == "BadInput"
    assert failure["error"].startswith("disk full: free space or choose another location")


@pytest.mark.parametrize(
    ("read", "library"),
    [
        (load_tokenizer, "transformers.AutoTokenizer.from_pretrained"),
        (lambda folder: load_model(folder, None), "transformers.AutoConfig.from_pretrained"),
        (
            lambda folder: load_model(folder, None),
            "transformers.AutoModelForCausalLM.from_pretrained",
        ),
        (read_tokenizer, "selfemo_jobs.stages.check.light_tokenizer.Tokenizer"),
    ],
)
def test_sigterm_while_a_model_loads(
    read: Callable[[Path], object], library: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken for a broken file, which would end the evolution."""
    flag = RaisingSigterm()
    kind = type("Library", (), {"from_file": sigterm})
    monkeypatch.setattr(library, kind if library.endswith("Tokenizer") else sigterm)
    with pytest.raises(Terminated):
        read(tiny_model)
    assert flag.received
