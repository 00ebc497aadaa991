"""Which models can play and be trained: by their configuration, and the names of their tensors."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.jobs.stages.check.world import World

from selfemo_jobs.acceleration.last_layer import PLAIN
from selfemo_jobs.models.model_weights import Tensor
from selfemo_jobs.models.quantization import quantization_of
from selfemo_jobs.stages.check.architecture import (
    check_architecture,
    decoder_classes,
    layer_count,
    trained_tensors,
)
from selfemo_jobs.stages.check.findings import Findings

MATRIX = Tensor("BF16", (8, 8))
LLAMA = {
    "model.embed_tokens.weight": MATRIX,
    "model.layers.0.self_attn.q_proj.weight": MATRIX,
    "model.layers.1.self_attn.q_proj.weight": MATRIX,
    "model.norm.weight": Tensor("BF16", (8,)),
}
GPT2 = {"transformer.wpe.weight": MATRIX, "transformer.h.0.attn.c_attn.weight": MATRIX}


def lines(world: World, config: dict[str, Any], tensors: dict[str, Tensor] = LLAMA) -> list[str]:
    findings = Findings()
    check_architecture(world.config().spec, config, tensors, findings)
    return [str(finding) for finding in findings.problems]


def test_the_decoders_are_those_of_the_library() -> None:
    """They are read from its source, since importing it would take as long as the check."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    expected = {
        kind: (names,) if isinstance(names, str) else tuple(names)
        for kind, names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()
    }
    assert decoder_classes() == expected
    assert set(decoder_classes()) >= PLAIN


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes, 8 bits"),
        ({"quant_method": "awq", "bits": 4, "version": "gemm"}, "awq, 4 bits"),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8"),
        ({"quant_method": "compressed-tensors", "format": "int-quantized"}, "compressed-tensors"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"format": "float-quantized"}, "float-quantized"),
        ({}, ""),
        (None, ""),
    ],
)
def test_quantization_by_the_configuration(details: dict[str, Any] | None, text: str) -> None:
    assert quantization_of({"quantization_config": details}, LLAMA) == text
    assert quantization_of({"text_config": {"quantization_config": details}}, LLAMA) == text


@pytest.mark.parametrize(
    "name", ["w.qweight", "w.weight_scale", "w.weight_scale_inv", "w.weight.absmax"]
)
def test_quantization_by_the_tensors(name: str) -> None:
    assert quantization_of({}, {**LLAMA, name: Tensor("I32", (8,))}) == "I32"
    assert quantization_of({}, {**LLAMA, "w.weight": Tensor("F8_E5M2", (8,))}) == "F8_E5M2"


@pytest.mark.parametrize(
    ("kind", "tensors"),
    [
        ("gpt2", GPT2),
        ("gpt_neo", GPT2),
        ("xglm", {"model.embed_tokens.weight": MATRIX}),
        ("opt", {"model.decoder.embed_positions.weight": MATRIX}),
        ("bloom", {"transformer.word_embeddings.weight": MATRIX}),
        ("gpt_neox", {"gpt_neox.embed_in.weight": MATRIX}),
        ("mistral", LLAMA),
        ("phi3", LLAMA),
        ("gemma3_text", LLAMA),
        ("qwen3_moe", LLAMA),
    ],
)
def test_positions_of_any_kind_are_fine(
    world: World, kind: str, tensors: dict[str, Tensor]
) -> None:
    """Training reads each row from its first column, as self-play does."""
    assert lines(world, {"model_type": kind}, tensors) == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [("gpt2", "n_positions"), ("opt", "max_position_embeddings"), ("mpt", "max_seq_len")],
)
def test_prompts_longer_than_the_positions(world: World, kind: str, name: str) -> None:
    """A prompt of 256 tokens with a completion of 12."""
    assert lines(world, {"model_type": kind, name: 268}, GPT2) == []
    assert lines(world, {"model_type": kind, name: 267}, GPT2) == [
        "model.maxPromptTokens: is 256, and with 12 completion tokens the model needs a context "
        "of 268, but it supports 267; set at most 255"
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"resid_pdrop": 0.1},
        {"attn_pdrop": 0.1, "embd_pdrop": 0.1},
        {"hidden_dropout": 0.2},
        {"attention_dropout": 0.1, "classifier_dropout": 0.1},
    ],
)
def test_dropout_is_fine(world: World, settings: dict[str, float]) -> None:
    """Training switches it off."""
    assert lines(world, {"model_type": "llama", **settings}) == []


def test_models_of_other_kinds(world: World) -> None:
    assert lines(world, {"model_type": "bart", "is_encoder_decoder": True}) == [
        "model.uri: the model (`model_type` bart) is an encoder-decoder: use a decoder-only model"
    ]
    rewarding = {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}
    assert lines(world, rewarding) == [
        "model.uri: the model is a LlamaForSequenceClassification: use one that generates text "
        "(LlamaForCausalLM)"
    ]
    assert (
        lines(world, {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}) == []
    )


def test_known_models_with_code_of_their_own_are_fine(world: World) -> None:
    """Their code is not run: Transformers has the same model."""
    assert lines(world, {"model_type": "phi3", "auto_map": {"AutoConfig": "x.Y"}}) == []


@pytest.mark.parametrize("kind", ["mamba", "recurrent_gemma", "zamba2"])
def test_models_without_attention(world: World, kind: str) -> None:
    assert lines(world, {"model_type": kind}) == [
        "selfPlay.engine: is Transformers, which cannot share prompts in a model with layers "
        f"without attention (`model_type` {kind}): use VLLM, or another model"
    ]
    world.spec["selfPlay"] = {"engine": "VLLM"}
    world.override(evaluation={"engine": "VLLM"})
    assert lines(world, {"model_type": kind}) == []


def test_a_model_without_a_cache(world: World) -> None:
    assert lines(world, {"model_type": "openai-gpt"}) == [
        "selfPlay.engine: is Transformers, which cannot share prompts in a model with no cache "
        "(`model_type` openai-gpt): use VLLM, or another model"
    ]


@pytest.mark.parametrize("kind", ["linear_attention", "mamba", "conv", "recurrent"])
def test_layers_of_other_kinds_are_named(world: World, kind: str) -> None:
    config = {"model_type": "llama", "layer_types": [kind, "full_attention"]}
    assert lines(world, config) == [
        "selfPlay.engine: is Transformers, which cannot share prompts in a model with layers of "
        f"the type {kind} (`model_type` llama): use VLLM, or another model"
    ]


def test_sliding_windows_are_attention(world: World) -> None:
    types = ["sliding_attention", "full_attention"]
    assert lines(world, {"model_type": "gemma3_text", "layer_types": types}) == []


def test_the_number_of_layers() -> None:
    assert layer_count(LLAMA) == 2
    assert layer_count(GPT2) == 0
    without_norm = {name: tensor for name, tensor in LLAMA.items() if "norm" not in name}
    assert layer_count(without_norm) == 0
    opt = {"model.decoder.layers.0.fc1.weight": MATRIX, "model.norm.weight": MATRIX}
    assert layer_count(opt) == 0


def test_train_layers_need_the_usual_build(world: World) -> None:
    world.spec["training"] = {"trainLayers": 1}
    assert lines(world, {"model_type": "llama"}) == []
    assert lines(world, {"model_type": "gpt_neox"}, {"gpt_neox.layers.0.w.weight": MATRIX}) == [
        "training.trainLayers: is 1, but the model (`model_type` gpt_neox) does not have the usual "
        "`layers` and `norm`: set 0"
    ]


def test_the_tensors_that_are_trained(world: World) -> None:
    assert trained_tensors(world.config().spec, LLAMA) == LLAMA
    world.spec["training"] = {"trainLayers": 1}
    assert list(trained_tensors(world.config().spec, LLAMA)) == [
        "model.layers.1.self_attn.q_proj.weight",
        "model.norm.weight",
    ]
