"""Whether the weights of a model are quantized, which training cannot write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.model_folder import read_model_config
from selfemo_jobs.models.model_weights import FolderFiles, Tensor, read_tensors

#: Ends of the names of tensors that quantization adds.
_QUANTIZED_NAMES = (
    *(".qweight", ".weight_scale", ".weight_scale_inv", ".weight_packed", ".absmax", ".quant_map"),
    *("_proj_blocks", "_proj_scales"),
)
#: Types of numbers, in the header of a safetensors file, that only quantized weights have.
_QUANTIZED_TYPES = ("F4", "F6", "F8", "I8", "U8")


def quantization_of(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return how a model is quantized; empty if it is not.

    Examples
    --------
    >>> quantization_of({"quantization_config": {"quant_method": "gptq", "bits": 4}}, {})
    'gptq, 4 bits'
    >>> quantization_of({}, {"model.norm.weight": Tensor("F8_E4M3", (8,))})
    'F8_E4M3'
    """
    for source in (config, config.get("text_config")):
        settings = source if isinstance(source, dict) else {}
        details = settings.get("quantization_config") or settings.get("compression_config")
        if isinstance(details, dict) and details:
            names = (details.get(key) for key in ("quant_method", "format", "quant_algo"))
            method = next((str(name) for name in names if name), "unknown method")
            bits = details.get("bits") or _bits_of(details)
            return f"{method}, {bits} bits" if bits else method
    for name, tensor in tensors.items():
        weight = name.endswith(".weight") and tensor.dtype.startswith(_QUANTIZED_TYPES)
        if weight or name.endswith(_QUANTIZED_NAMES):
            return tensor.dtype
    return ""


def quantized_message(quantization: str) -> str:
    """Return what a person is told about a quantized model.

    Parameters
    ----------
    quantization
        How it is quantized, see :func:`quantization_of`.
    """
    return (
        f"the model is quantized ({quantization}): training writes full-precision weights, so "
        "use the unquantized model"
    )


def refuse_quantized(folder: Path, uri: str) -> None:
    """Check that the weights of a model are whole. Only headers are read.

    Parameters
    ----------
    folder
        The model's folder.
    uri
        The model's URI, for the message.

    Raises
    ------
    BadInput
        If they are quantized.
    """
    tensors = read_tensors(FolderFiles(folder), str(folder))
    quantization = quantization_of(read_model_config(folder), tensors)
    if quantization:
        raise BadInput(f"{uri}: {quantized_message(quantization)}")


def _bits_of(details: Mapping[str, Any]) -> int | None:
    """Return the number of bits that the settings of bitsandbytes name."""
    if details.get("load_in_4bit"):
        return 4
    return 8 if details.get("load_in_8bit") else None
