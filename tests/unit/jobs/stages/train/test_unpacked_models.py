"""Models that training does not pack: it reads the tokens as self-play did, and without dropout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from tests.unit.jobs.stages.train.kept_tables import kept_table
from transformers import AutoTokenizer, PreTrainedModel
from trl import GRPOConfig

from selfemo_jobs.acceleration.padded_rows import pad_rows
from selfemo_jobs.engines.interface import Sampling
from selfemo_jobs.engines.transformers_engine import TransformersEngine
from selfemo_jobs.models.dropout import disable_dropout
from selfemo_jobs.models.fetch import load_model
from selfemo_jobs.stages.train.batches import BatchShape, plan_steps
from selfemo_jobs.stages.train.rollout_data import RolloutData, training_columns
from selfemo_jobs.stages.train.trainer import SelfGRPOTrainer

HEADS = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 32}
GROUPED = {**HEADS, "intermediate_size": 64, "num_key_value_heads": 1}
#: Kinds of models: learned positions with and without dropout, computed ones, and other layers.
KINDS: dict[str, Callable[..., Any]] = {
    "gpt2": lambda **k: transformers.GPT2Config(
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=96,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
        **k,
    ),
    "gpt2 with dropout": lambda **k: transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=2, n_positions=96, **k
    ),
    "gpt_neo with dropout": lambda **k: transformers.GPTNeoConfig(
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=8,
        attention_dropout=0.2,
        resid_dropout=0.2,
        embed_dropout=0.2,
        **k,
    ),
    "opt with dropout": lambda **k: transformers.OPTConfig(
        ffn_dim=64, word_embed_proj_dim=32, dropout=0.3, attention_dropout=0.3, **HEADS, **k
    ),
    "bloom with dropout": lambda **k: transformers.BloomConfig(
        hidden_size=32, n_layer=2, n_head=2, hidden_dropout=0.3, attention_dropout=0.3, **k
    ),
    "xglm with dropout": lambda **k: transformers.XGLMConfig(
        d_model=32, ffn_dim=64, num_layers=2, attention_heads=2, dropout=0.3, layerdrop=0.5, **k
    ),
    "phi3 with dropout": lambda **k: transformers.Phi3Config(
        resid_pdrop=0.3, embd_pdrop=0.3, attention_dropout=0.3, **GROUPED, **k
    ),
    "mistral": lambda **k: transformers.MistralConfig(sliding_window=8, **GROUPED, **k),
    "llama with dropout": lambda **k: transformers.LlamaConfig(
        attention_dropout=0.3, **GROUPED, **k
    ),  # packed: the control
}


def make_model(kind: str, tiny_model: Path, folder: Path) -> Path:
    """Write a random model with clear differences between positions."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = KINDS[kind](vocab_size=len(tokenizer), bos_token_id=None, **special)
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.mul_(20 if "wpe" in name or "embed_positions" in name else 4)
    model.save_pretrained(folder)
    for path in tiny_model.glob("tokenizer*"):
        shutil.copyfile(path, folder / path.name)
    return folder


def trainer_of(folder: Path, rollouts: RolloutData, output: Path) -> SelfGRPOTrainer:
    steps = plan_steps(
        rollouts.groups,
        rollouts.prompts.lengths,
        rollouts.completions.lengths,
        BatchShape(8, 8, 1),  # two groups, with prompts of different length, in one pass
        epochs=1,
        seed=0,
    )
    arguments = GRPOConfig(
        output_dir=str(output),
        per_device_train_batch_size=8,
        gradient_accumulation_steps=1,
        num_generations=4,
        loss_type="dapo",
        epsilon=0.2,
        epsilon_high=0.28,
        beta=0.0,
        temperature=1.0,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
    )
    model = load_model(folder, torch.float32)
    disable_dropout(model)
    trainer = SelfGRPOTrainer(
        model=model,
        processing_class=AutoTokenizer.from_pretrained(folder),
        args=arguments,
        train_dataset=Dataset.from_dict({"row": list(range(len(rollouts) + 1))}),
        rollouts=rollouts,
        steps=steps,
        kl_beta=0.0,
    )
    trainer.current_gradient_accumulation_steps = 1
    return trainer


@pytest.mark.parametrize("kind", KINDS)
def test_at_unchanged_weights_nothing_is_clipped(
    kind: str, tiny_model: Path, tmp_path: Path
) -> None:
    folder = make_model(kind, tiny_model, tmp_path / "model")
    rollouts = RolloutData.from_table(training_columns([kept_table(tiny_model, 5, 4)]))
    assert len(set(rollouts.prompts.lengths.tolist())) > 1
    trainer = trainer_of(folder, rollouts, tmp_path)
    old = trainer.compute_logprobs(trainer.model)
    _check_importance(trainer, folder, rollouts, old)
    trainer.set_logprobs(old, None, 10.0)
    trainer.model.train()
    for number in range(len(trainer._steps)):
        trainer.state.global_step = number
        share = [i for part in trainer._steps[number].micro_batches[0] for i in part]
        batch = [{"row": row if row >= 0 else len(rollouts)} for row in share]
        trainer._compute_loss(trainer.model, trainer._prepare_inputs(batch)).backward()
    metrics = trainer._metrics["train"]
    assert set(metrics["clip_ratio/region_mean"]) == {0.0}


def _check_importance(
    trainer: SelfGRPOTrainer, folder: Path, rollouts: RolloutData, old: np.ndarray[Any, Any]
) -> None:
    """Compare training's log-probabilities with those of each row read alone."""
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    offsets = rollouts.completions.offsets
    for row in range(len(rollouts)):
        prompt, completion = rollouts.prompts[row].tolist(), rollouts.completions[row].tolist()
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([prompt + completion])).logits
        chosen = torch.log_softmax(logits[0, len(prompt) - 1 : -1], -1)
        alone = chosen.gather(1, torch.tensor(completion).unsqueeze(1)).squeeze(1).numpy()
        weights = np.exp(old[offsets[row] : offsets[row + 1]] - alone)
        np.testing.assert_allclose(weights, 1.0, atol=1e-3)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "llama" not in kind])
def test_self_play_and_training_agree(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    """The log-probabilities that the engine reports are those that training starts from."""
    folder = make_model(kind, tiny_model, tmp_path / "model")
    table = RolloutData.from_table(training_columns([kept_table(tiny_model, 4, 2)]))
    engine = TransformersEngine(folder, max_model_len=96)
    prompts = [table.prompts[group[0]].tolist() for group in table.groups]
    drawn = engine.generate(prompts, Sampling(n=2, max_tokens=5, seed=1))
    completions = [list(c.token_ids) for group in drawn for c in group]
    sampled = [c.logprobs for group in drawn for c in group]
    trainer = trainer_of(folder, table, tmp_path)
    repeated = [prompt for prompt in prompts for _ in range(2)]
    trainer._batch = pad_rows(repeated, completions, 5, 0)
    width = torch.zeros(len(completions), 5)
    with torch.no_grad():
        now, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, width, width, 5)
    for row, expected in zip(now, sampled, strict=True):
        np.testing.assert_allclose(row[: len(expected)].numpy(), expected, atol=1e-4)


def test_every_dropout_is_found(tiny_model: Path, tmp_path: Path) -> None:
    for kind in KINDS:
        folder = make_model(kind, tiny_model, tmp_path / kind)
        model: PreTrainedModel = load_model(folder, torch.float32)
        before = (folder / "config.json").read_text()
        disable_dropout(model)
        model.train()
        ids = torch.arange(40).unsqueeze(0)
        with torch.no_grad():
            passes = [model(input_ids=ids).logits for _ in range(3)]
            expected = model.eval()(input_ids=ids).logits
        for logits in passes:
            assert torch.equal(logits, expected), kind
        assert (folder / "config.json").read_text() == before
