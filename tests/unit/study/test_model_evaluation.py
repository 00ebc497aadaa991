"""Where an evaluation is stored: it follows from the content of its source."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.unit.study.made_up import study, write_data

from selfemo_jobs.errors import BadInput
from selfemo_study.data_volumes import DataVolumes
from selfemo_study.model_evaluation import evaluation_manifest
from selfemo_study.row_task import RowTask
from selfemo_study.source_contents import source_hashes
from selfemo_study.study_folders import StudyFolders


def manifest_of(root: Path, data: Path, **model: str) -> Path:
    """Return the manifest of a model's evaluation on dev."""
    made, folders, volumes = study(), StudyFolders(root), DataVolumes({"made": data})
    task = RowTask(made, made.row("main"), 1, folders, volumes)
    spec = task.spec.model_copy(update={"model": task.spec.model.model_copy(update=model)})
    return evaluation_manifest(root / "model", spec, task.dev_source, folders, volumes)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with the sources, beside that of a model."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    folder = tmp_path / "data"
    folder.mkdir()
    write_data(folder)
    return folder


def test_a_corrected_source_is_evaluated_again(tmp_path: Path, data: Path) -> None:
    first = manifest_of(tmp_path, data)
    dev = data / "dev.jsonl"
    before = dev.read_text()
    dev.write_text(before.replace("so joy", "so much joy", 1))
    assert manifest_of(tmp_path, data) != first
    dev.write_text(before)
    (data / "test.jsonl").write_text("another source\n")
    assert manifest_of(tmp_path, data) == first
    dev.unlink()
    with pytest.raises(BadInput, match=r"dev\.jsonl does not exist"):
        manifest_of(tmp_path, data)


def test_a_corrected_prompt_set_is_evaluated_again(tmp_path: Path, data: Path) -> None:
    prompts = data / "prompts.yaml"
    manifests = set()
    for text in ("recognize: one", "recognize: two", "recognize: one"):
        prompts.write_text(text)
        manifests.add(manifest_of(tmp_path, data, prompts="data://made/prompts.yaml"))
    assert len(manifests) == 2


@pytest.mark.parametrize("uri", ["data://made/dev.jsonl", "data://made/*.jsonl", "data://made"])
def test_the_content_of_a_source_does_not_follow_from_its_folder(
    tmp_path: Path, data: Path, uri: str
) -> None:
    for split in ("train", "test"):  # a folder has one split
        (data / f"{split}.jsonl").unlink()
    shutil.copy(data / "dev.jsonl", data / "dev-more.jsonl")
    elsewhere = tmp_path / "with a blank"
    shutil.copytree(data, elsewhere)
    one, two = (source_hashes([uri], DataVolumes({"made": f})) for f in (data, elsewhere))
    assert one == two
    file = elsewhere / "dev.jsonl"
    file.write_text(file.read_text().replace("so joy", "joy", 1))
    assert source_hashes([uri], DataVolumes({"made": elsewhere})) != one
