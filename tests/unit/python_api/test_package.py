"""The package: light to import, typed, and clear about what is not installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import selfemo
from selfemo_api.text.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[3]
#: All that an installation without extras lacks.
_BLOCKED = sorted({module for modules in EXTRAS.values() for module in modules})
_WITHOUT_EXTRAS = f"""
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {_BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""
_NEEDS_JOBS = {
    "selfemo.Recognizer('model')": "selfemo.Recognizer",
    "selfemo.Responder('model')": "selfemo.Responder",
    "selfemo.Model('model').folder": "selfemo.Model",
    "selfemo.Prediction": "selfemo.Prediction",
    "selfemo.Reply": "selfemo.Reply",
    "selfemo.read_dialogues('talk.txt')": "selfemo.read_dialogues",
    "evolution.run()": "selfemo.Evolution.run",
    "evolution.report()": "selfemo.Evolution.report",
}


def run_python(code: str, folder: Path) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=folder, capture_output=True
    )
    assert process.returncode == 0, process.stderr.decode()
    return process.stdout.decode()


def test_the_import_is_light(tmp_path: Path) -> None:
    heavy = ("torch", "transformers", "pyarrow", "numpy", "rich", "yaml", "pydantic")
    code = f"import sys, selfemo; print([m for m in {heavy!r} if m in sys.modules])"
    assert run_python(code, tmp_path) == "[]\n"


def test_without_extras_a_file_is_read_and_the_rest_names_the_extra(tmp_path: Path) -> None:
    code = f"""{_WITHOUT_EXTRAS}
import selfemo
evolution = selfemo.Evolution.from_file({str(ROOT / "examples/demo.yaml")!r}, state="state")
assert evolution.status.phase == "Pending" and evolution.best is None
for call in {list(_NEEDS_JOBS)!r}:
    try:
        eval(call)
    except selfemo.MissingExtra as error:
        print(error)
    else:
        raise SystemExit(call)
"""
    lines = run_python(code, tmp_path).splitlines()
    assert len(lines) == len(_NEEDS_JOBS)
    for line, name in zip(lines, _NEEDS_JOBS.values(), strict=True):
        extra = "report" if name.endswith(".report") else "jobs"
        assert line.startswith(f'{name} requires the extra "{extra}": run `tools/uv sync')


def test_all_names_are_there() -> None:
    assert dir(selfemo) == sorted(selfemo.__all__)
    for name in selfemo.__all__:
        assert getattr(selfemo, name) is not None
    assert selfemo.__version__ == version("selfemo")
    with pytest.raises(AttributeError, match="no attribute 'Evolutions'"):
        _ = selfemo.Evolutions  # type: ignore[attr-defined]


def test_the_package_is_typed() -> None:
    assert (Path(selfemo.__file__).parent / "py.typed").is_file()
    program = Path(__file__).parent / "typed_use.py"
    command = [sys.executable, "-m", "mypy", "--strict", str(program)]
    process = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout
