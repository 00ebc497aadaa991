"""The commands in an environment without any extra, which is installed for this test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
UV = shutil.which("uv") or str(CACHE / "selfemo" / "uv" / "bin" / "uv")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of a base install."""
    if not Path(UV).is_file():
        pytest.skip("uv is not installed")
    folder = tmp_path_factory.mktemp("base") / "venv"
    done = subprocess.run(
        [UV, "sync", "--quiet", "--locked", "--no-dev"],
        cwd=ROOT,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(folder), "UV_PYTHON_DOWNLOADS": "never"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"the base packages cannot be installed: {done.stderr}")
    return folder / "bin"


def run(program: Path, *words: str, folder: Path) -> tuple[int, str, str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [program, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_what_a_base_install_can_do(programs: Path, tmp_path: Path) -> None:
    selfemo = programs / "selfemo"
    assert run(selfemo, "init", "a.yaml", "--preset", "MELD", folder=tmp_path)[0] == 0
    assert run(selfemo, "validate", "a.yaml", folder=tmp_path)[1] == "a.yaml is valid\n"
    for words in (["list"], ["schema"], ["-h"], ["run", "-h"], ["predict", "-h"], ["--version"]):
        code, _, err = run(selfemo, *words, folder=tmp_path)
        assert (code, "Traceback" in err) == (0, False), (words, err)
    code, out, _ = run(selfemo, "doctor", "-o", "json", folder=tmp_path)
    marks = {finding["name"]: finding["mark"] for finding in json.loads(out)["findings"]}
    assert (code, marks["extra jobs"], marks["extra operator"]) == (2, "problem", "note")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "words", "extra"),
    [
        ("selfemo", ["run", "a.yaml"], "jobs"),
        ("selfemo", ["check", "a.yaml"], "jobs"),
        ("selfemo", ["report", "a.yaml"], "report"),
        ("selfemo", ["predict", "model", "file"], "jobs"),
        ("selfemo", ["serve", "model"], "jobs"),
        ("selfemo", ["data", "check", "x"], "jobs"),
        ("selfemo", ["model", "tiny", "--to", "x"], "jobs"),
        ("kubectl-selfemo", ["list"], "operator"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_command_says_which_extra_is_missing(
    program: str, words: list[str], extra: str, programs: Path, tmp_path: Path
) -> None:
    assert run(programs / "selfemo", "init", "a.yaml", "--preset", "MELD", folder=tmp_path)[0] == 0
    code, out, err = run(programs / program, *words, folder=tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert (
        f'this command requires the extra "{extra}": run `tools/uv sync --inexact --extra {extra}`'
        in err
    )
