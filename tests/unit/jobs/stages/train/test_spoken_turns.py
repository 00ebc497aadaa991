"""The turns that the responder imitates: which ones, and in the form of the warm start."""

from __future__ import annotations

from pathlib import Path

from tests.unit.jobs.stages.train.kept_tables import kept_table

from selfemo_api.dataset_labels import MELD
from selfemo_api.spec import View
from selfemo_jobs.datasets.dialogue import Dialogue, Utterance
from selfemo_jobs.models.fetch import load_tokenizer
from selfemo_jobs.prompts import load_prompt_set
from selfemo_jobs.stages.train.spoken_turns import (
    SpokenTurn,
    SpokenTurns,
    read_spoken_turns,
    turn_examples,
)
from selfemo_jobs.stages.warmstart.examples import examples_of

CONTEXT = [{"speaker": "Bob", "text": "How was it?"}]


def test_real_turns_after_another_one_are_collected(tiny_model: Path, tmp_path: Path) -> None:
    rows = kept_table(tiny_model, 6, 2).to_pylist()
    changes = {
        "g0004": {"context": CONTEXT, "target": "Great!"},
        "g0000": {"context": CONTEXT, "target": "Well.", "consensus": ["fear", "anger"]},
        "g0001": {"context": CONTEXT},  # a responder's group
        "g0002": {"context": []},  # the first turn of a dialogue answers nothing
    }
    rows = [row | changes.get(row["group_id"], {}) for row in rows]
    appended = [row | {"group_id": "g0009", "context": CONTEXT, "turn": 1} for row in rows[:2]]
    table = kept_table(tiny_model, 6, 2)
    tables = [type(table).from_pylist(part, table.schema) for part in (rows[::-1], appended)]
    turns = SpokenTurns(tmp_path / "scratch")
    assert [t.num_rows for t in turns.collected(tables)] == [12, 2]
    turns.write(tmp_path)
    first, second = read_spoken_turns(tmp_path)
    assert (first.text, first.emotions) == ("Well.", ("fear", "anger"))
    assert (second.text, second.emotions, second.speaker) == ("Great!", ("joy",), "Ann")
    assert second.context == (Utterance("Bob", "How was it?"),)


def test_without_collected_turns_there_are_none(tmp_path: Path) -> None:
    assert list(read_spoken_turns(tmp_path)) == []


def test_an_example_is_the_one_of_a_warm_start(tiny_model: Path, tmp_path: Path) -> None:
    table = kept_table(tiny_model, 1, 2)
    rows = [table.to_pylist()[0] | {"context": CONTEXT, "consensus": ["joy"], "target": "Great!"}]
    turns = SpokenTurns(tmp_path / "scratch")
    list(turns.collected([type(table).from_pylist(rows, table.schema)]))
    turns.write(tmp_path)
    (turn,) = read_spoken_turns(tmp_path)
    tokenizer, prompts = load_tokenizer(tiny_model), load_prompt_set("compact-v1")
    said = Dialogue("d", (Utterance("Bob", "How was it?"), Utterance("Ann", "Great!", ("joy",))))
    lengths = []
    for most in (32, 2):
        _, (example,) = examples_of(
            [said], MELD, prompts, tokenizer, views=[View(past=1)], past=1, max_prompt_tokens=99,
            max_response_tokens=most,
        )  # fmt: skip
        prompt, completion = turn.example(prompts, tokenizer, MELD, 99, most)
        assert (tuple(prompt), tuple(completion)) == (example.prompt, example.completion)
        lengths.append(len(completion))
    assert lengths[0] > lengths[1] == 2


def test_an_example_whose_prompt_does_not_fit_is_left_out(tiny_model: Path) -> None:
    tokenizer, prompts = load_tokenizer(tiny_model), load_prompt_set("compact-v1")
    context = (Utterance("Bob", "How was it?"),)
    turns = [
        SpokenTurn(context, "Ann", "Great!", emotions)
        for emotions in (("joy",), tuple(MELD), ("joy",))
    ]
    fits = len(turns[0].example(prompts, tokenizer, MELD, 99, 32)[0])
    found = list(turn_examples(turns, prompts, tokenizer, MELD, fits, 32))
    assert found == [turns[0].example(prompts, tokenizer, MELD, 99, 32)] * 2

    said = Dialogue("d", (*context, Utterance("Ann", "Great!", tuple(MELD))))
    asks, says = examples_of(
        [said], MELD, prompts, tokenizer, views=[View(past=0)], past=1, max_prompt_tokens=fits
    )
    assert (len(asks), says) == (1, [])
