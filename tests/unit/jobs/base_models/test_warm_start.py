"""Supervised training on a labeled share, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfemo_api.contract import ExitCode
from selfemo_api.spec import View
from selfemo_jobs.base_models.__main__ import main
from selfemo_jobs.base_models.warm_start import (
    IGNORED,
    Example,
    _losses,
    examples_of,
    warm_start,
)
from selfemo_jobs.base_models.warm_start_options import WarmStartOptions
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.errors import BadInput
from selfemo_jobs.models.fetch import load_model, load_tokenizer
from selfemo_jobs.prompts import load_prompt_set

LABELS = ("joy", "anger")
#: The label follows from one word: something to learn.
WORDS = {"joy": "yes", "anger": "no"}


def dialogues(count: int) -> list[Dialogue]:
    found = []
    for i in range(count):
        labels = [LABELS[(i * 7 + turn * turn) % 2] for turn in range(4)]
        turns = [
            Utterance("AB"[turn % 2], f"oh {WORDS[label]} well", (label,))
            for turn, label in enumerate(labels)
        ]
        found.append(Dialogue(str(i), tuple(turns)))
    return found


def jsonl(path: Path, count: int) -> Path:
    lines = [
        {
            "id": d.id,
            "turns": [
                {"speaker": t.speaker, "text": t.text, "labels": list(t.labels)} for t in d.turns
            ],
        }
        for d in dialogues(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_examples_teach_both_roles(tiny_model: Path) -> None:
    tokenizer, prompts = load_tokenizer(tiny_model), load_prompt_set("compact-v1")
    asks, says = examples_of(dialogues(1), LABELS, prompts, tokenizer, WarmStartOptions(past=1))
    assert len(asks) == 4
    assert len(says) == 3, "the first turn answers nothing"
    assert tokenizer.decode(asks[1].prompt) == "A: oh yes well\nB: oh no well\nEmotion:"
    assert tokenizer.decode(asks[1].completion) == " anger\n"
    assert tokenizer.decode(says[0].prompt) == "A: oh yes well\n(anger) B:"
    assert tokenizer.decode(says[0].completion) == " oh no well\n"


def test_views_teach_each_utterance_with_more_or_less_around(tiny_model: Path) -> None:
    tokenizer, prompts = load_tokenizer(tiny_model), load_prompt_set("compact-v1")
    views = (View(past=1), View(past=0, future=2))
    asks, says = examples_of(
        dialogues(1), LABELS, prompts, tokenizer, WarmStartOptions(past=1, views=views)
    )
    texts = [tokenizer.decode(ask.prompt) for ask in asks]
    assert len(asks) == 2 * 4 and len(says) == 3
    assert texts[2] == "A: oh yes well\nB: oh no well\nEmotion:"
    assert texts[3] == "Later A: oh yes well\nLater B: oh no well\nB: oh no well\nEmotion:"
    assert asks[2].completion == asks[3].completion


def test_the_loss_is_that_of_a_plain_forward_pass(tiny_model: Path) -> None:
    """Padding and leaving logits out change nothing."""
    model = load_model(tiny_model, torch.float32)
    batch = [Example((5, 6, 7, 8), (9, 10)), Example((11,), (12, 13, 14)), Example((5,) * 9, (3,))]
    for example, loss in zip(batch, _losses(model, batch, pad=0), strict=True):
        ids = torch.tensor([[*example.prompt, *example.completion]])
        wanted = ids.clone()
        wanted[:, : len(example.prompt)] = IGNORED
        assert loss.item() == pytest.approx(
            model(input_ids=ids, labels=wanted).loss.item(), abs=1e-4
        )


def test_it_learns_and_repeats(tiny_model: Path) -> None:
    tokenizer, prompts = load_tokenizer(tiny_model), load_prompt_set("compact-v1")
    settings = WarmStartOptions(steps=60, batch_size=12, learning_rate=3e-3)
    examples = examples_of(dialogues(6), LABELS, prompts, tokenizer, settings)
    weights = []
    for _ in range(2):
        model = load_model(tiny_model, torch.float32)
        loss = warm_start(model, tokenizer, *examples, settings)
        weights.append(model.state_dict())
    assert loss < 1.0, "the chance level of two labels and a line break is over 3 at the start"
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_frozen_embeddings_stay_and_the_rest_moves(tiny_model: Path) -> None:
    tokenizer, prompts = load_tokenizer(tiny_model), load_prompt_set("compact-v1")
    settings = WarmStartOptions(steps=3, batch_size=4, freeze_embeddings=True)
    model = load_model(tiny_model, torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    examples = examples_of(dialogues(2), LABELS, prompts, tokenizer, settings)
    warm_start(model, tokenizer, *examples, settings)
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and not any("embed_tokens" in name or "lm_head" in name for name in moved)
    assert all(weight.requires_grad for weight in model.parameters())


def test_only_the_last_layer_and_the_final_norm_move(tiny_model: Path) -> None:
    tokenizer, prompts = load_tokenizer(tiny_model), load_prompt_set("compact-v1")
    settings = WarmStartOptions(steps=3, batch_size=4, train_layers=1)
    model = load_model(tiny_model, torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    examples = examples_of(dialogues(2), LABELS, prompts, tokenizer, settings)
    warm_start(model, tokenizer, *examples, settings)
    last = f"layers.{model.config.num_hidden_layers - 1}."
    moved = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    assert moved and all(last in name or name.endswith("model.norm.weight") for name in moved)


def test_nothing_labelled_is_named(tiny_model: Path) -> None:
    with pytest.raises(BadInput, match="no labeled utterance"):
        warm_start(
            load_model(tiny_model, torch.float32),
            load_tokenizer(tiny_model),
            [],
            [],
            WarmStartOptions(),
        )


def test_the_command_writes_a_model_and_says_what_was_seen(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = jsonl(tmp_path / "train.jsonl", 10)
    command = ["warm-start", "--model", str(tiny_model), "--output", str(tmp_path / "warm")]
    command += ["--source", str(source), "--format", "JSONL", "--labels", "joy,anger"]
    command += ["--share", "0.3", "--steps", "2", "--batch-size", "4"]
    for _ in range(2):  # again: the folder is replaced
        assert main(command) == ExitCode.OK
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["dialogues"] == 3 and said["utterances"] == 12
    assert "offset: 3" in said["hint"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train.jsonl", "warm"]
    new, old = (load_file(f / "model.safetensors") for f in (tmp_path / "warm", tiny_model))
    assert new.keys() == old.keys() and any(not torch.equal(new[k], old[k]) for k in new)
    assert load_tokenizer(tmp_path / "warm").eos_token == load_tokenizer(tiny_model).eos_token


def test_the_command_says_f1_on_dev(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, dev = jsonl(tmp_path / "train.jsonl", 6), jsonl(tmp_path / "dev.jsonl", 9)
    command = ["warm-start", "--source", str(train), "--format", "JSONL", "--labels", "joy,anger"]
    command += ["--dev", str(dev), "--share", "1", "--batch-size", "12", "--learning-rate", "3e-3"]
    f1s = []
    for start, name, steps in ((tiny_model, "some", "1"), (tmp_path / "some", "more", "60")):
        there = ["--model", str(start), "--output", str(tmp_path / name), "--steps", steps]
        assert main([*command, *there]) == ExitCode.OK
        said = json.loads(capsys.readouterr().out.splitlines()[-1])
        low, high = said["devInterval"]
        assert low <= said["devWeightedF1"] <= high
        f1s.append(said["devWeightedF1"])
    assert f1s[0] < 0.8 < f1s[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--dev": "/nowhere.jsonl"}, "--dev /nowhere.jsonl does not exist"),
        ({"--model": "/nowhere"}, "/nowhere does not exist"),
        ({"--source": "/nowhere.csv"}, "--source /nowhere.csv does not exist"),
        ({"--labels": "joy"}, "anger"),
        ({"--prompts": "none-v1"}, "none-v1"),
        ({"--share": "0"}, "--share"),
        ({"--share": "1.5"}, "--share"),
        ({"--view": "1"}, "--view 1: must be two whole numbers"),
        ({"--view": "1,65"}, "--view 1,65"),
        ({"--steps": "0"}, "--steps 0: Input should be greater than or equal to 1"),
        ({"--responder-share": "1.5"}, "--responder-share 1.5: Input should be less than"),
        ({"--train-layers": "64"}, "`--train-layers` is 64, but the model has"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    said: str,
) -> None:
    options = {
        "--model": str(tiny_model),
        "--output": str(tmp_path / "warm"),
        "--source": str(jsonl(tmp_path / "train.jsonl", 2)),
        "--format": "JSONL",
        "--labels": "joy,anger",
        "--share": "0.5",
        "--steps": "1",
    }
    options.update(change)
    assert (
        main(["warm-start", *(x for pair in options.items() for x in pair)]) == ExitCode.BAD_INPUT
    )
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error
    assert not (tmp_path / "warm").exists()
