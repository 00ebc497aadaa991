"""The completion for a shell: the script, and what it offers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.operator.cli.runs.test_run_list import named, store

FOLDER = Path(sys.executable).parent


def complete(line: str, state: Path, program: str = "selfemo") -> list[str]:
    """Return what bash is offered for the last word of a line."""
    words = line.split(" ")
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    environment = {
        **os.environ,
        variable: "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "SELFEMO_STATE": str(state),
    }
    done = subprocess.run(
        [FOLDER / program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1] if done.stdout else []


def in_bash(*words: str | Path) -> list[str | Path]:
    """Return a command below a shell: Typer asks which one runs it, and CI may have none."""
    return ["bash", "-c", '"$@"; exit $?', "bash", *words]


@pytest.mark.parametrize("program", ["selfemo", "kubectl-selfemo"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_printed(program: str, shell: str, tmp_path: Path) -> None:
    done = subprocess.run(
        in_bash(FOLDER / program, "--show-completion", shell),
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    assert variable in done.stdout
    assert f"{program}" in done.stdout
    assert "kubectl selfemo" not in done.stdout
    if shell == "bash":
        checked = subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False)
        assert checked.returncode == 0


def test_the_script_is_installed(tmp_path: Path) -> None:
    done = subprocess.run(
        in_bash(FOLDER / "selfemo", "--install-completion", "bash"),
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "_SELFEMO_COMPLETE" in (tmp_path / ".bash_completions" / "selfemo.sh").read_text()


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("selfemo sta", ["status"]),
        ("selfemo data c", ["check", "convert"]),
        ("selfemo init --recipe sm", ["small-v2", "small-v1"]),
        ("selfemo init --preset ME", ["MELD"]),
        ("selfemo logs x --stage Tr", ["Train"]),
        ("selfemo run x --set training.imit", ["training.imitation="]),
        ("selfemo run x --set training.clip.l", ["training.clip.low="]),
        ("selfemo status de", ["demo"]),
        ("selfemo watch ", ["demo", "team/other"]),
        ("selfemo stop team", ["team/other"]),
    ],
)
def test_what_is_offered(line: str, offers: list[str], tmp_path: Path) -> None:
    store(tmp_path, named("demo")).close()
    store(tmp_path, named("other", "team")).close()
    assert complete(line, tmp_path) == offers


def test_the_options_of_kubectl_selfemo(tmp_path: Path) -> None:
    assert complete("kubectl-selfemo wa", tmp_path, "kubectl-selfemo") == ["watch"]
    offers = complete("kubectl-selfemo watch x --", tmp_path, "kubectl-selfemo")
    assert {"--context", "--namespace", "--kubeconfig", "--once"} <= set(offers)
