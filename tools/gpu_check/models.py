"""The models of the checks. Their weights are random: nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tools.gpu_check.lines import Settings

from selfemo_jobs.base_models.tiny import make_tiny
from selfemo_jobs.stages.check.architecture_size import QWEN3, DecoderSize, decoder_size

#: The vocabulary of the small model's tokenizer has more tokens than this. Those of the checks are
#: below it, after the special ones.
TOKENS = 300
#: What the random weights are multiplied by, so that contexts matter and probabilities differ: with
#: the weights of an untrained model, all next tokens are about equally likely.
_MATRICES, _EMBEDDINGS = 6.0, 12.0


def small_model(settings: Settings) -> Path:
    """Return the folder of a model of a million parameters whose answers are far from uniform."""
    folder = settings.folder / "small"
    if not (folder / "ready").exists():
        make_tiny(folder)
        file = folder / "model.safetensors"
        weights = load_file(file)
        for name, tensor in weights.items():
            if tensor.ndim == 2:
                tensor.mul_(_EMBEDDINGS if "embed" in name else _MATRICES)
        save_file(weights, file, {"format": "pt"})
        (folder / "ready").touch()
    return folder


def speed_model(settings: Settings) -> Path:
    """Return the folder of the model whose speed is measured."""
    if settings.model is not None:
        return settings.model
    if settings.shape == "tiny":
        return small_model(settings)
    folder = settings.folder / settings.shape
    if not (folder / "ready").exists():
        make_tiny(folder)  # for its tokenizer
        _write_model(folder, QWEN3[settings.shape], settings.device)
        (folder / "ready").touch()
    return folder


def size_of(folder: Path) -> DecoderSize:
    """Return the size of the model in a folder."""
    size = decoder_size(json.loads((folder / "config.json").read_text()))
    if size is None:
        raise ValueError(f"{folder}/config.json lacks the numbers of a decoder")
    return size


def _write_model(folder: Path, shape: Any, device: str) -> None:
    """Write a model of Qwen3's shape with random weights in bfloat16. On a GPU this is faster."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    given = {name: value for name, value in shape.items() if name != "model_type"}
    ids = json.loads((folder / "config.json").read_text())
    config = Qwen3Config(
        **given,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=ids["eos_token_id"],
        pad_token_id=ids["pad_token_id"],
    )
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = Qwen3ForCausalLM(config)
        finally:
            torch.set_default_dtype(torch.float32)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    model.save_pretrained(folder)
