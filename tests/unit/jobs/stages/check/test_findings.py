"""Problems are joined as far as they fit, with the number of the others."""

from __future__ import annotations

import errno
import os

import pytest

from selfemo_api.results import TERMINATION_MESSAGE_BYTES, FailureMessage, encode_message
from selfemo_jobs.errors import BadInput, InputProblems, Unavailable
from selfemo_jobs.stages.check.findings import MESSAGE_CHARACTERS, Finding, Findings, joined


def test_each_error_becomes_a_problem_of_its_field() -> None:
    findings = Findings()
    with findings.collecting("model.prompts"):
        raise BadInput("`model.prompts` is chat-v9: there is no such set")
    with findings.collecting("training.epochs"):
        raise BadInput("is\nodd")
    with findings.collecting("storage.uri"):
        raise Unavailable("S3 is away")
    with findings.collecting("dataset.sources[0].uri"):
        raise PermissionError(errno.EACCES, "Permission denied", "/data/a.csv")
    with pytest.raises(ValueError, match="a bug"), findings.collecting("model.uri"):
        raise ValueError("a bug")
    denied = (
        f"dataset.sources[0].uri: /data/a.csv: Permission denied: grant this user ({os.geteuid()}) "
        "permission, or choose another location"
    )
    assert [str(finding) for finding in findings.problems] == [
        "model.prompts: is chat-v9: there is no such set",
        "overrides.training.epochs: is odd",
        denied,
    ]
    with pytest.raises(InputProblems) as caught:
        findings.raise_if_any()
    assert str(caught.value).splitlines() == [
        "3 problems",
        "model.prompts: is chat-v9: there is no such set",
        "overrides.training.epochs: is odd",
        denied,
        "storage.uri: not checked: S3 is away",
    ]


def test_the_same_problem_is_there_once() -> None:
    findings = Findings()
    findings.problem("model.uri", "does not exist")
    findings.problem("model.uri", "does not exist")
    assert len(findings.problems) == 1


@pytest.mark.parametrize(
    "text", ["x" * 90, "困惑" * 45, '"' * 90], ids=["ASCII", "Chinese", "JSON"]
)
@pytest.mark.parametrize("count", [1, 5, 40, 400])
def test_joined_problems_fit_and_count_the_rest(text: str, count: int) -> None:
    findings = [Finding(f"dataset.sources[{i}].uri", f"{text} {i}") for i in range(count)]
    message = joined(findings)
    assert len(message) <= MESSAGE_CHARACTERS
    encoded = encode_message(FailureMessage(error=message, kind="BadInput"))
    assert len(encoded.encode()) <= TERMINATION_MESSAGE_BYTES
    assert FailureMessage.model_validate_json(encoded).error == message
    lines = message.splitlines()
    if count == 1:
        assert lines == [str(findings[0])]
        return
    assert lines[0] == f"{count} problems"
    shown = [line for line in lines[1:] if not line.startswith("and ")]
    assert shown == [str(finding) for finding in findings[: len(shown)]]
    rest = count - len(shown)
    assert lines[-1] == (f"and {rest} more: see the log" if rest else shown[-1])


def test_a_single_endless_problem_is_cut() -> None:
    message = joined([Finding("model.uri", "困" * 5000), Finding("seed", "is odd")])
    assert message.endswith("…\nand 1 more: see the log")
    assert len(encode_message(FailureMessage(error=message, kind="BadInput")).encode()) <= 4096
