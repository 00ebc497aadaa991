"""The supervised training of the warm start, on the tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.unit.jobs.stages.warm_start_dialogues import LABELS, dialogues
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from selfemo_api.spec import View
from selfemo_jobs.acceleration.frozen_states import FrozenStates
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.fetch import load_model, load_tokenizer
from selfemo_jobs.models.trained_layers import train_last_layers
from selfemo_jobs.prompts import load_prompt_set
from selfemo_jobs.stages.warmstart.examples import Example, examples_of
from selfemo_jobs.stages.warmstart.options import WarmStartOptions
from selfemo_jobs.stages.warmstart.supervised_trainer import (
    IGNORED,
    SupervisedTrainer,
    example_losses,
    train_steps,
)

DEFAULTS = WarmStartOptions()


def read_examples(
    tokenizer: PreTrainedTokenizerBase, count: int, options: WarmStartOptions = DEFAULTS
) -> tuple[list[Example], list[Example]]:
    return examples_of(
        dialogues(count),
        LABELS,
        load_prompt_set("compact-v1"),
        tokenizer,
        views=options.views or [View(past=1)],
        past=1,
        max_prompt_tokens=options.max_prompt_tokens,
    )


def test_examples_teach_both_roles(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    asks, says = read_examples(tokenizer, 1)
    assert len(asks) == 4
    assert len(says) == 3, "the first turn answers nothing"
    assert tokenizer.decode(asks[1].prompt) == "A: oh yes well\nB: oh no well\nEmotion:"
    assert tokenizer.decode(asks[1].completion) == " anger\n"
    assert tokenizer.decode(says[0].prompt) == "A: oh yes well\n(anger) B:"
    assert tokenizer.decode(says[0].completion) == " oh no well\n"


def test_views_teach_each_utterance_with_more_or_less_around(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    views = [View(past=1), View(past=0, future=2)]
    asks, says = read_examples(tokenizer, 1, WarmStartOptions(views=views))
    texts = [tokenizer.decode(ask.prompt) for ask in asks]
    assert len(asks) == 2 * 4 and len(says) == 3
    assert texts[2] == "A: oh yes well\nB: oh no well\nEmotion:"
    assert texts[3] == "Later A: oh yes well\nLater B: oh no well\nB: oh no well\nEmotion:"
    assert asks[2].completion == asks[3].completion


def test_the_loss_is_that_of_a_plain_forward_pass(tiny_model: Path) -> None:
    """Padding and leaving logits out change nothing."""
    model = load_model(tiny_model, torch.float32)
    batch = [Example((5, 6, 7, 8), (9, 10)), Example((11,), (12, 13, 14)), Example((5,) * 9, (3,))]
    for example, loss in zip(batch, example_losses(model, batch, pad=0), strict=True):
        ids = torch.tensor([[*example.prompt, *example.completion]])
        wanted = ids.clone()
        wanted[:, : len(example.prompt)] = IGNORED
        assert loss.item() == pytest.approx(
            model(input_ids=ids, labels=wanted).loss.item(), abs=1e-4
        )


@pytest.mark.parametrize("trained", [1, 3])
def test_kept_states_of_frozen_layers_change_nothing(tiny_model: Path, trained: int) -> None:
    model = load_model(tiny_model, torch.float32)
    train_last_layers(model, trained)
    batch = [Example((5, 6, 7, 8), (9, 10)), Example((11,), (12, 13, 14)), Example((5,) * 9, (3,))]
    states = FrozenStates(model, trained, [example.text for example in batch])
    gradients = []
    for kept in (None, states):
        losses = example_losses(model, batch, 0, kept)
        losses.sum().backward()
        weights = [p for p in model.parameters() if p.requires_grad]
        gradients.append([losses.detach(), *[p.grad.clone() for p in weights]])
        model.zero_grad()
    for plain, fast in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, fast, rtol=1e-4, atol=1e-5)
    assert len(model.get_decoder().layers) == 4, "the model is whole again"


def test_only_the_trained_layers_run(tiny_model: Path) -> None:
    model = load_model(tiny_model, torch.float32)
    train_last_layers(model, 1)
    batch = [Example((5, 6), (9,)), Example((11,), (12,))]
    states = FrozenStates(model, 1, [example.text for example in batch])
    for layer in model.get_decoder().layers[:-1]:
        layer.forward = None  # a call would fail
    assert example_losses(model, batch, 0, states).isfinite().all()


def test_it_learns_and_repeats(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    settings = WarmStartOptions(steps=60, batch_size=12, learning_rate=3e-3)
    examples = read_examples(tokenizer, 6)
    weights = []
    for _ in range(2):
        model = load_model(tiny_model, torch.float32)
        loss = train_steps(model, tokenizer, *examples, settings)
        weights.append(model.state_dict())
    assert loss < 1.0, "the chance level of two labels and a line break is over 3 at the start"
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_frozen_embeddings_stay_and_the_rest_moves(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    settings = WarmStartOptions(steps=3, batch_size=4, freeze_embeddings=True)
    model = load_model(tiny_model, torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    examples = read_examples(tokenizer, 2)
    train_steps(model, tokenizer, *examples, settings)
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and not any("embed_tokens" in name or "lm_head" in name for name in moved)
    assert all(weight.requires_grad for weight in model.parameters())


def test_only_the_last_layer_and_the_final_norm_move(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    settings = WarmStartOptions(steps=3, batch_size=4, train_layers=1)
    model = load_model(tiny_model, torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    examples = read_examples(tokenizer, 2)
    train_steps(model, tokenizer, *examples, settings)
    last = f"layers.{model.config.num_hidden_layers - 1}."
    moved = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    assert moved and all(last in name or name.endswith("model.norm.weight") for name in moved)


def test_missing_labels_are_reported(tiny_model: Path) -> None:
    with pytest.raises(BadInput, match="no labeled utterance"):
        train_steps(
            load_model(tiny_model, torch.float32),
            load_tokenizer(tiny_model),
            [],
            [],
            WarmStartOptions(),
        )


def trainer_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> SupervisedTrainer:
    recognizer, responder = read_examples(tokenizer, 3)
    options = WarmStartOptions(batch_size=4, learning_rate=1e-5)
    pad = tokenizer.pad_token_id
    return SupervisedTrainer(
        model, recognizer, responder, options, pad=pad, seed=1, rate=lambda _step: 1.0
    )


def test_small_changes_of_bfloat16_weights_add_up(tiny_model: Path) -> None:
    """As on a GPU: the optimizer updates copies in float32, and the model reads them rounded."""
    tokenizer = load_tokenizer(tiny_model)
    model = load_model(tiny_model, torch.bfloat16)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainer = trainer_of(model, tokenizer)
    for _ in range(4):
        assert trainer.make_step() > 0
    weights = trainer.weights()
    assert all(weight.dtype is torch.float32 for weight in weights.values())
    for name, parameter in model.named_parameters():
        assert parameter.dtype is torch.bfloat16
        assert torch.equal(parameter, weights[name].to(torch.bfloat16))
    moved = torch.cat([(weights[name] != start[name].float()).flatten() for name in weights])
    rounded = torch.cat([(p != start[name]).flatten() for name, p in model.named_parameters()])
    assert moved.float().mean() > 0.5 > rounded.float().mean(), "most changes are below bfloat16"


@pytest.mark.parametrize("unused", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_trainer_continues_from_its_state(
    tiny_model: Path, dtype: torch.dtype, *, unused: bool
) -> None:
    tokenizer = load_tokenizer(tiny_model)

    def load() -> PreTrainedModel:
        model = load_model(tiny_model, dtype)
        if unused:  # as an expert that no example has reached: it gets no gradient
            model.register_parameter("unused", torch.nn.Parameter(torch.ones(3, dtype=dtype)))
        return model

    first = trainer_of(load(), tokenizer)
    for _ in range(2):
        first.make_step()
    state = first.state()
    losses = [first.make_step() for _ in range(2)]
    second = trainer_of(load(), tokenizer)
    torch.manual_seed(99)
    second.load_state(state)
    assert second.step == 2
    assert [second.make_step() for _ in range(2)] == losses
    for name, weight in first.weights().items():
        assert torch.equal(weight, second.weights()[name])
    with pytest.raises(RuntimeError, match="only a new trainer"):
        second.load_state(state)
