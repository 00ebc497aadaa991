"""The notebook of the documentation runs from top to bottom, without a network."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from tests.support.connections import connection_log

#: The run of a fixture may take long on a busy machine.
pytestmark = pytest.mark.timeout(1800)

ROOT = Path(__file__).resolve().parents[3]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_not_stored(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert set(cell.metadata) == set()


@pytest.mark.slow  # a whole run
def test_the_quickstart_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(ROOT / "docs/notebooks/quickstart.ipynb", as_version=4)
    with connection_log(tmp_path / "connections") as log:
        for name, value in log.variables.items():
            monkeypatch.setenv(name, value)
        folder = {"metadata": {"path": str(ROOT / "docs/notebooks")}}
        NotebookClient(notebook, timeout=500, resources=folder).execute()
    assert log.read() == []
    texts = [_text(cell) for cell in notebook.cells if cell.cell_type == "code"]
    assert "'Succeeded'" in texts[3]
    assert "generation 1: Train" in texts[3]
    assert texts[4].startswith("0 Baseline F1 0.")
    assert len(texts[6].splitlines()) == 3
    assert len(texts[8].splitlines()) == 3
    assert (next(tmp_path.glob("selfemo-*")) / "report.html").is_file()


def _text(cell: Any) -> str:
    """Return what a cell printed, and its value. Progress bars are on standard error."""
    return "".join(
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
        if output.get("name") != "stderr"
    )
