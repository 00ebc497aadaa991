from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.gguf_conversion import convert_to_gguf, find_converter

#: A converter that writes down what it was given, in place of a model.
CONVERTER = """
import json, os, sys
from pathlib import Path
folder, out = Path(sys.argv[1]), Path(sys.argv[sys.argv.index("--outfile") + 1])
out.write_text(json.dumps({
    "arguments": sys.argv[1:],
    "config": json.loads((folder / "config.json").read_text()),
    "files": sorted(path.name for path in folder.iterdir()),
    "weights": (folder / "model.safetensors").stat().st_size,
    "environment": dict(os.environ),
}))
"""


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "source"))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_own.Own"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_own.py").write_text("raise SystemExit('code of the model was run')")
    return folder


def test_the_converter_gets_the_model_without_its_code_or_a_token(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter = tmp_path / "convert_hf_to_gguf.py"
    converter.write_text(CONVERTER)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    output = tmp_path / "out" / "model.gguf"
    convert_to_gguf(model, output, converter, "f16")
    received = json.loads(output.read_text())
    assert received["arguments"][1:] == ["--outfile", str(output), "--outtype", "f16"]
    assert "auto_map" not in received["config"] and "model_type" in received["config"]
    assert "modeling_own.py" not in received["files"] and "tokenizer.json" in received["files"]
    assert received["weights"] == (model / "model.safetensors").stat().st_size
    assert "hf_secret" not in json.dumps(received)
    assert received["environment"]["HF_HUB_OFFLINE"] == "1"
    assert [path.name for path in output.parent.iterdir()] == ["model.gguf"]
    assert "auto_map" in json.loads((model / "config.json").read_text())


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            "import sys; sys.exit('no such architecture')",
            "exited with code 1: no such architecture",
        ),
        ("raise KeyError('x')", "exited with code 1: KeyError: 'x'"),
        ("pass", "exited with code 0: it printed no error message"),
    ],
)
def test_a_converter_that_fails_is_explained(
    model: Path, tmp_path: Path, program: str, message: str
) -> None:
    converter = tmp_path / "converter.py"
    converter.write_text(program)
    with pytest.raises(BadInput, match=message) as error:
        convert_to_gguf(model, tmp_path / "out" / "model.gguf", converter)
    assert "\n" not in str(error.value)


def test_a_program_is_started_without_a_shell(model: Path, tmp_path: Path) -> None:
    converter = tmp_path / "a converter; touch pwned"
    converter.write_text(f"#!{sys.executable}\n{CONVERTER}")
    converter.chmod(0o755)
    convert_to_gguf(model, tmp_path / "out" / "model.gguf", converter)
    assert (tmp_path / "out" / "model.gguf").is_file()
    assert not (tmp_path / "pwned").exists()
    converter.chmod(0o644)
    if os.geteuid() != 0 or not os.access(converter, os.X_OK):
        with pytest.raises(BadInput, match="cannot be started"):
            convert_to_gguf(model, tmp_path / "out" / "again.gguf", converter)


def test_the_converter_is_named_or_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"needs llama\.cpp's converter.*--converter llama\.cpp/"):
        find_converter(None)
    with pytest.raises(BadInput, match="the file does not exist"):
        find_converter(str(tmp_path / "nowhere.py"))
    program = tmp_path / "convert_hf_to_gguf.py"
    program.write_text("")
    program.chmod(0o755)
    assert find_converter(None) == program
    assert find_converter(str(program)) == program
