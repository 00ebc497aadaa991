"""Converts a model to GGUF with llama.cpp's own converter, which is a program of its own.

No package of llama.cpp's authors ships the converter. So the user names it, or it is on the PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.model_folder import model_files

#: The names of the converter: that of llama.cpp, and those of packages of distributions.
CONVERTERS = ("convert_hf_to_gguf.py", "convert-hf-to-gguf", "llama-convert-hf-to-gguf")
#: The number formats of the converter. `auto` keeps that of the model, with 16 bits.
OUT_TYPES = ("auto", "f32", "f16", "bf16", "q8_0")
#: The entry with which a model names code of its own.
_OWN_CODE = "auto_map"
#: The end of the converter's output that a message shows, in characters.
_SHOWN = 300


def find_converter(converter: str | None) -> Path:
    """Return the path of llama.cpp's converter.

    Parameters
    ----------
    converter
        The path of the converter. None: it is looked up on the PATH.

    Raises
    ------
    BadInput
        If it is not there. The message says how to get it.
    """
    if converter is not None:
        path = Path(converter).expanduser().absolute()
        if not path.is_file():
            raise BadInput(f"--converter {converter}: the file does not exist")
        return path
    for name in CONVERTERS:
        program = shutil.which(name)
        if program is not None:
            return Path(program)
    raise BadInput(
        f"--format gguf needs llama.cpp's converter, and {CONVERTERS[0]} is not on the PATH: get "
        f"https://github.com/ggml-org/llama.cpp and specify --converter llama.cpp/{CONVERTERS[0]}"
    )


def convert_to_gguf(folder: Path, output: Path, converter: Path, out_type: str = "auto") -> None:
    """Write a model as one GGUF file.

    The converter gets a copy of the folder's names without references to code of the model, and no
    token of the hub.

    Parameters
    ----------
    folder
        The folder of the model.
    output
        The file to write.
    converter
        The path of the converter: a Python file, or a program.
    out_type
        One of :data:`OUT_TYPES`.

    Raises
    ------
    BadInput
        If the converter fails. The message has the last line that it printed.
    """
    work = output.parent / "model"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for path in model_files(folder):
        _add(path, work / path.name)
    start = [sys.executable] if converter.suffix == ".py" else []
    command = [*start, str(converter), str(work), "--outfile", str(output), "--outtype", out_type]
    try:
        process = subprocess.run(
            command,
            env=_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise BadInput(f"{converter} cannot be started: {error.strerror}") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if process.returncode != 0 or not output.is_file():
        lines = process.stderr.strip().splitlines() or process.stdout.strip().splitlines()
        reason = lines[-1][:_SHOWN] if lines else "it printed no error message"
        raise BadInput(f"{converter} exited with code {process.returncode}: {reason}")


def _add(path: Path, target: Path) -> None:
    """Link a file of a model, or write it without references to code of the model."""
    if path.suffix == ".json" and path.name.endswith("config.json"):
        value: Any = json.loads(path.read_bytes())
        if isinstance(value, dict) and _OWN_CODE in value:
            value.pop(_OWN_CODE)
            target.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")
            return
    target.symlink_to(path.absolute())


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the converter's environment: without secrets of the hub, and without the hub."""
    secrets = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"}
    kept = {name: value for name, value in environment.items() if name not in secrets}
    return {**kept, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
