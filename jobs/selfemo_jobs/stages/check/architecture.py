"""Whether a model can play, be read and be trained, by its configuration and its tensors. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from selfemo_api.spec import Engine, EvolutionSpec
from selfemo_jobs.models.model_weights import Tensor
from selfemo_jobs.models.position_limit import position_limit
from selfemo_jobs.models.quantization import quantization_of, quantized_message
from selfemo_jobs.stages.check.findings import Findings

#: The library's file that lists the decoders, and the name of the list in it. Importing the file
#: would import torch.
_DECODERS = ("models/auto/modeling_auto.py", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES")
#: Kinds of layers (`layer_types`) that the engine Transformers can read.
_ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention", "attention"})
#: Model types with layers of other kinds, whose configuration may not list them.
_RECURRENT = frozenset(
    {
        *("bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "kimi_linear", "lfm2"),
        *("lfm2_moe", "mamba", "mamba2", "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5"),
        *("qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "recurrent_gemma"),
        *("rwkv", "xlstm", "zamba", "zamba2"),
    }
)
#: Model types that keep no state of the tokens that they have read.
_WITHOUT_CACHE = frozenset({"openai-gpt"})
_LAYER = re.compile(r"^((?:[^.]+\.)?)layers\.(\d+)\.")


def check_architecture(
    spec: EvolutionSpec,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    findings: Findings,
    *,
    field: str = "model.uri",
) -> None:
    """Find what in a model does not fit the spec.

    Parameters
    ----------
    spec
        The resolved spec.
    config
        The content of the model's ``config.json``.
    tensors
        The tensors of its weights. Empty: they could not be read.
    findings
        The problems are added to it.
    field
        The field that names the model.
    """
    kind = str(config.get("model_type", ""))
    decoder = config.get("text_config")
    text = decoder if isinstance(decoder, dict) else config
    quantization = quantization_of(config, tensors)
    if quantization:
        findings.problem(field, quantized_message(quantization))
    unsupported = _unsupported(kind, config)
    if unsupported:
        findings.problem(field, unsupported)
        return
    _check_positions(spec, text, findings)
    _check_engines(spec, kind, text, findings)
    if tensors:
        _check_trained_parts(spec, kind, tensors, findings)


def trained_tensors(spec: EvolutionSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that training changes, as far as it changes those of the model.

    Parameters
    ----------
    spec
        The resolved spec. With ``trainLayers``, only the last layers and the final norm are
        trained.
    tensors
        The tensors of the model.
    """
    count = spec.training.train_layers
    layers = layer_count(tensors)
    if count == 0 or count >= layers:
        return dict(tensors)
    trained = {}
    for name, tensor in tensors.items():
        match = _LAYER.match(name)
        last = int(match[2]) >= layers - count if match else name.endswith("norm.weight")
        if last:
            trained[name] = tensor
    return trained


def layer_count(tensors: Mapping[str, Tensor]) -> int:
    """Return the number of layers of a decoder of the usual build; 0 for another build.

    Examples
    --------
    >>> weight = Tensor("F32", (4, 4))
    >>> layer_count({"model.layers.0.mlp.up_proj.weight": weight, "model.norm.weight": weight})
    1
    """
    matches = [match for name in tensors if (match := _LAYER.match(name))]
    bases = {match[1] for match in matches}
    if not matches or any(f"{base}norm.weight" not in tensors for base in bases):
        return 0
    return 1 + max(int(match[2]) for match in matches)


@cache
def decoder_classes() -> dict[str, tuple[str, ...]]:
    """Return the classes of decoders that Transformers has, by the type of the model."""
    library = find_spec("transformers")
    if library is None or library.origin is None:
        return {}
    path, list_name = _DECODERS
    tree = ast.parse((Path(library.origin).parent / path).read_text(encoding="utf-8"))
    for node in tree.body:
        names = [t.id for t in getattr(node, "targets", []) if isinstance(t, ast.Name)]
        if list_name in names and isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            pairs = ast.literal_eval(node.value.args[0])
            return {k: (v,) if isinstance(v, str) else tuple(v) for k, v in pairs}
    return {}


def _unsupported(kind: str, config: Mapping[str, Any]) -> str:
    """Return why a model is not a decoder that Transformers has; empty if it is one."""
    classes = decoder_classes()
    names = config.get("architectures")
    architectures = [str(name) for name in names] if isinstance(names, list) else []
    if not classes:
        return ""  # Transformers is not installed, which is a problem of its own
    if kind not in classes:
        if config.get("auto_map"):
            return (
                f"the model (`model_type` {kind}) requires custom code, which is never run: use "
                "a model that Transformers supports"
            )
        return (
            f"`model_type` {kind} is not a decoder that this version of Transformers supports: "
            "use another model"
        )
    if config.get("is_encoder_decoder"):
        return f"the model (`model_type` {kind}) is an encoder-decoder: use a decoder-only model"
    if architectures and not set(architectures) & set(classes[kind]):
        return (
            f"the model is a {architectures[0]}: use one that generates text "
            f"({' or '.join(classes[kind])})"
        )
    return ""


def _check_positions(spec: EvolutionSpec, config: Mapping[str, Any], findings: Findings) -> None:
    limit = position_limit(config)
    tokens = spec.self_play.max_tokens
    longest = max(tokens.recognizer, tokens.responder, spec.reading_tokens)
    needed = spec.model.max_prompt_tokens + longest
    if limit is not None and needed > limit:
        findings.problem(
            "model.maxPromptTokens",
            f"is {spec.model.max_prompt_tokens}, and with {longest} completion tokens the model "
            f"needs a context of {needed}, but it supports {limit}; set at most {limit - longest}",
        )


def _check_engines(
    spec: EvolutionSpec, kind: str, config: Mapping[str, Any], findings: Findings
) -> None:
    types = config.get("layer_types")
    others = sorted({str(name) for name in types if name not in _ATTENTION} if types else set())
    if not others and kind not in _RECURRENT | _WITHOUT_CACHE:
        return
    what = f"layers of the type {', '.join(others)}" if others else "layers without attention"
    if kind in _WITHOUT_CACHE:
        what = "no cache"
    fields = {"selfPlay.engine": spec.self_play.engine}
    if spec.evaluation.engine is not None:
        fields["evaluation.engine"] = spec.evaluation.engine
    for field, engine in fields.items():
        if engine is Engine.TRANSFORMERS:
            findings.problem(
                field,
                f"is Transformers, which cannot share prompts in a model with {what} "
                f"(`model_type` {kind}): use VLLM, or another model",
            )


def _check_trained_parts(
    spec: EvolutionSpec, kind: str, tensors: Mapping[str, Tensor], findings: Findings
) -> None:
    training, layers = spec.training, layer_count(tensors)
    if training.train_layers > 0 and layers == 0:
        findings.problem(
            "training.trainLayers",
            f"is {training.train_layers}, but the model (`model_type` {kind}) does not have the "
            "usual `layers` and `norm`: set 0",
        )
    elif training.train_layers >= max(layers, 1) and training.train_layers > 0:
        findings.problem(
            "training.trainLayers",
            f"is {training.train_layers}, but the model has {layers} layers: set less, or 0 to "
            "train all",
        )
    if training.lora is None or training.lora.rank == 0:
        return
    matrices = (n for n, tensor in tensors.items() if len(tensor.shape) == 2)
    modules = {name.removesuffix(".weight") for name in matrices if name.endswith(".weight")}
    for target in training.lora.target_modules:
        if target == "all-linear" or any(m == target or m.endswith(f".{target}") for m in modules):
            continue
        last = sorted({m.rpartition(".")[2] for m in modules if re.search(r"\d", m)})
        findings.problem(
            "training.lora.targetModules",
            f"the model has no module `{target}`: it has {', '.join(last)}",
        )
