"""`selfemo export` as a command: what it writes, prints and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from tests.support.s3_server import S3Server
from tests.unit.jobs.models.descriptions import described, score
from tests.unit.jobs.models.test_gguf_conversion import CONVERTER

from selfemo_api.contract import ENV_WORK, ExitCode
from selfemo_jobs.models.description_file import encode_description, read_description
from selfemo_jobs.models.model_description import with_scores
from selfemo_jobs.models.model_folder import model_hashes
from selfemo_jobs.models.model_reference import ReferenceOptions, resolve_model
from selfemo_jobs.store.hashing import file_sha256
from selfemo_jobs.use_commands.__main__ import main


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ENV_WORK, str(tmp_path / "work"))
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    description = with_scores(described(weights_sha256=model_hashes(folder)), [score(f1=0.5)])
    (folder / "selfemo.json").write_bytes(encode_description(description))
    return folder


def export(*arguments: object) -> int:
    return main(["export", *map(str, arguments)])


def test_to_a_folder(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export("model", "copy/of it") == ExitCode.OK
    shown = capsys.readouterr().out
    assert shown.startswith(f"{tmp_path.as_uri()}/copy/of%20it: ") and "F1 0.500" in shown
    resolved = resolve_model(str(tmp_path / "copy" / "of it"))
    assert resolved.description == read_description(model)
    assert export("model", "copy/of it", "-o", "json") == ExitCode.OK
    result = json.loads(capsys.readouterr().out)
    assert result["written"] == 0 and result["weightedF1"] == 0.5


def test_to_s3_with_a_license(s3: S3Server, model: Path, tmp_path: Path) -> None:
    storage = s3.storage(tmp_path.name)
    options = ("--endpoint", s3.endpoint, "--path-style", "--license", "mit")
    assert export(model, f"{storage.uri}/copy", *options) == ExitCode.OK
    resolved = resolve_model(f"{storage.uri}/copy", ReferenceOptions(storage=storage))
    assert resolved.description.license == "mit"
    assert ModelCard.load(resolved.folder / "README.md").data.license == "mit"
    assert export(f"{storage.uri}/copy", tmp_path / "back", *options) == ExitCode.OK
    assert model_hashes(tmp_path / "back") == model_hashes(model)


def test_as_gguf(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    converter = tmp_path / "convert_hf_to_gguf.py"
    converter.write_text(CONVERTER)
    gguf = ("--format", "gguf", "--converter", converter, "--outtype", "q8_0")
    assert export(model, tmp_path / "copy", *gguf) == ExitCode.OK
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert names == {"demo-g002-q8_0.gguf", "selfemo.json", "README.md"}
    description = read_description(tmp_path / "copy")
    assert description is not None
    file = tmp_path / "copy" / "demo-g002-q8_0.gguf"
    assert description.weights_sha256 == {file.name: file_sha256(file)}
    assert file.name in (tmp_path / "copy" / "README.md").read_text()
    assert "3 files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["TO", "--private"], "--private requires a target on the Hub"),
        (["TO", "--license", "<b>"], "must be a license identifier of the Hub"),
        (["TO", "--converter", "x.py"], "require --format gguf"),
        (["ftp://host/x"], "the target must be a folder"),
        (["package://smollm2"], "the target must be a folder"),
        (["TO", "--endpoint", "nowhere"], "--endpoint: "),
        (["TO", "--generation", "1"], "YAML file of an evolution"),
        (["TO", "--labels", "x,y"], "has its own labels"),
    ],
)
def test_a_wrong_call_is_one_line(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    filled = [str(tmp_path / "to") if word == "TO" else word for word in arguments]
    assert export(model, *filled) == ExitCode.BAD_INPUT
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("selfemo export: ") and "\n" not in error
    assert not (tmp_path / "to").exists()
