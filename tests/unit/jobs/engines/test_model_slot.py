"""Paths of models that stay the same from generation to generation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from selfemo_jobs.base_models.tiny import make_tiny
from selfemo_jobs.engines.model_slot import ModelSlot
from selfemo_jobs.engines.vllm_engine import common_length


def model(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    (made / "config.json").write_text(name)
    return made


def test_models_one_after_another_have_one_path(tmp_path: Path) -> None:
    paths = []
    for name in ("one", "two"):
        with ModelSlot(model(tmp_path, name), tmp_path / "slots") as slot:
            assert (slot.path / "config.json").read_text() == name
            paths.append(slot.path)
    assert paths[0] == paths[1] != tmp_path / "one"


def test_models_at_the_same_time_have_several(tmp_path: Path) -> None:
    slots = [ModelSlot(model(tmp_path, name), tmp_path / "slots") for name in ("one", "two")]
    assert [(slot.path / "config.json").read_text() for slot in slots] == ["one", "two"]
    slots[0].close()
    third = ModelSlot(model(tmp_path, "three"), tmp_path / "slots")
    assert third.path == slots[0].path
    assert (slots[1].path / "config.json").read_text() == "two"


def test_a_killed_process_gives_its_path_back(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from selfemo_jobs.engines.model_slot import ModelSlot\n"
        "print(ModelSlot(Path(sys.argv[1]), Path(sys.argv[2])).path, flush=True); os._exit(9)"
    )
    one, slots = model(tmp_path, "one"), tmp_path / "slots"
    command = [sys.executable, "-c", code, str(one), str(slots)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    with ModelSlot(model(tmp_path, "two"), slots) as slot:
        assert str(slot.path) == done.stdout.strip()
        assert (slot.path / "config.json").read_text() == "two"


def test_without_a_place_for_links_the_folder_is_used(tmp_path: Path) -> None:
    folder = model(tmp_path, "one")
    (tmp_path / "file").touch()
    assert ModelSlot(folder, tmp_path / "file" / "slots").path == folder
    assert ModelSlot(folder, None).path == folder
    assert not (tmp_path / "slots").exists()


def test_the_stages_of_a_generation_have_one_limit(tmp_path: Path) -> None:
    make_tiny(tmp_path)  # 2,048 positions
    assert common_length(tmp_path, 1072) == common_length(tmp_path, 1040) == 1280
    assert common_length(tmp_path, 2048) == 2048
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "max_position_embeddings": 300}')
    assert common_length(tmp_path, 270) == 270
