"""Several files, several documents and standard input."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.selfemo_commands import Outcome, invoke
from tests.unit.api.documents import VALID

from selfemo_api.contract import ExitCode
from selfemo_operator.cli import check, run
from selfemo_operator.cli.run_options import RunRequest
from selfemo_operator.local.state import RunnerError


def document(name: str, **spec: Any) -> str:
    spec = {**VALID["spec"], **spec}
    return yaml.safe_dump({**VALID, "metadata": {"name": name}, "spec": spec})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, *documents: str) -> str:
    Path(name).write_text("---\n".join(documents))
    return name


def type_in(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def selfemo(*words: str) -> Outcome:
    return invoke("selfemo", *words)


def test_each_document_of_each_file_is_reported() -> None:
    one = write("one.yaml", document("a"))
    several = write("several.yaml", document("b"), document("c", nonsense=1), document("d"))
    outcome = selfemo("validate", one, several, "none.yaml")
    assert outcome.code == 2
    assert outcome.out == (
        "one.yaml is valid\n"
        "several.yaml (document 1) is valid\n"
        "several.yaml (document 3) is valid\n"
    )
    first, second = outcome.err.splitlines()
    assert first.startswith(
        "selfemo validate: several.yaml (document 2): spec.nonsense: unknown field (line "
    )
    assert second == "selfemo validate: none.yaml: cannot be read: No such file or directory"


def test_each_document_is_an_object_in_json() -> None:
    file = write("f.yaml", document("a"), document("b", seed=-1), document("c"))
    outcome = selfemo("validate", file, "-o", "json")
    assert (outcome.code, outcome.err) == (2, "")
    first, second, third = map(json.loads, outcome.out.splitlines())
    assert (first["metadata"]["name"], third["metadata"]["name"]) == ("a", "c")
    assert (second["kind"], second["exitCode"]) == ("BadInput", 2)
    assert second["problems"][0]["field"] == "spec.seed"
    assert second["problems"][0]["file"] == "f.yaml (document 2)"


def test_resolved_documents_are_yaml_documents() -> None:
    outcome = selfemo("validate", write("f.yaml", document("a"), document("b")), "--resolve")
    assert outcome.code == 0
    assert len(list(yaml.safe_load_all(outcome.out))) == 2


def test_changes_hold_for_each_document() -> None:
    file = write("f.yaml", document("a"), document("b"))
    outcome = selfemo("validate", file, "-o", "json", "--set", "seed=7")
    assert [json.loads(line)["spec"]["seed"] for line in outcome.out.splitlines()] == [7, 7]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, f"{document('a')}---\n{document('b', seed=-1)}".encode())
    outcome = selfemo("validate", "-")
    assert (outcome.code, outcome.out) == (2, "standard input (document 1) is valid\n")
    assert outcome.err.startswith("selfemo validate: standard input (document 2): spec.seed: ")
    type_in(monkeypatch, b"a: \xe9")
    assert "standard input: is not UTF-8 (byte 3)" in selfemo("validate", "-").err
    assert "`-` is specified twice" in selfemo("validate", "-", "-").err


class Runs:
    """Records the evolutions that would run, and how each ends."""

    def __init__(self, **ends: int | RunnerError) -> None:
        self.ends = ends
        self.names: list[str] = []

    def __call__(self, request: RunRequest, **_options: bool) -> int:
        name = request.evolution.metadata.name
        self.names.append(name)
        end = self.ends.get(name, 0)
        if isinstance(end, RunnerError):
            raise end
        return end


def test_evolutions_run_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = RunnerError("is in use", ExitCode.UNAVAILABLE)
    runs = Runs(b=1, c=busy)
    monkeypatch.setattr(run, "run", runs)
    one, rest = write("one.yaml", document("a"), document("b")), write("c.yaml", document("c"))
    outcome = selfemo("run", one, rest, write("d.yaml", document("d")))
    assert runs.names == ["a", "b", "c", "d"]
    assert outcome.code == 1  # that of the first that failed
    assert outcome.err == "selfemo run: is in use\n"


@pytest.mark.parametrize("code", [ExitCode.INTERRUPTED, ExitCode.TERMINATED])
def test_an_interrupted_run_ends_all(code: ExitCode, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(a=RunnerError("stopped", code))
    monkeypatch.setattr(run, "run", runs)
    outcome = selfemo("run", write("f.yaml", document("a"), document("b")))
    assert (outcome.code, runs.names, outcome.err) == (code, ["a"], "selfemo run: stopped\n")


@pytest.mark.parametrize("command", ["run", "check"])
def test_nothing_starts_with_a_mistake_in_one_file(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    monkeypatch.setattr(run, "run", runs)
    monkeypatch.setattr(check, "check", runs)
    good = write("good.yaml", document("a"))
    bad = write("bad.yaml", document("b", seed=-1), document("c", nonsense=1))
    outcome = selfemo(command, good, bad)
    assert (outcome.code, runs.names, outcome.out) == (2, [], "")
    first, second = outcome.err.splitlines()
    assert first.startswith(f"selfemo {command}: bad.yaml (document 1): spec.seed: ")
    assert second.startswith(f"selfemo {command}: bad.yaml (document 2): spec.nonsense: ")


def test_two_documents_must_not_be_one_evolution() -> None:
    one, two = write("one.yaml", document("a")), write("two.yaml", document("a"))
    outcome = selfemo("run", one, two)
    assert outcome.code == 2
    assert outcome.err == (
        "selfemo run: two.yaml: metadata.name: one.yaml also contains the evolution `a`: rename "
        "one of them\n"
    )
    assert "one.yaml also contains the evolution `a`" in selfemo("run", one, one).err


def test_checks_are_headed_by_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "check", Runs(b=2, c=75))
    file = write("f.yaml", document("a"), document("b"), document("c"))
    outcome = selfemo("check", file)
    assert outcome.code == 2
    assert outcome.out == "".join(f"f.yaml (document {n}):\n" for n in (1, 2, 3))
    assert selfemo("check", file, "-o", "json").out == ""
