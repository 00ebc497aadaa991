from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from tests.unit.jobs.models.descriptions import LABELS, config, described, score

from selfemo_api.model_description import ModelDescription
from selfemo_api.spec import DatasetSpec, Preset
from selfemo_jobs.models.markdown_text import code, code_block, table
from selfemo_jobs.models.model_card import card_text
from selfemo_jobs.models.model_description import describe, with_scores

#: A label that would be Markdown, HTML and a row of a table.
NASTY = "`*|<script>alert(1)</script>[x](http://evil) ---"


def scored(**changes: object) -> ModelDescription:
    description = described(**changes)
    scores = [score("dev", 0.6), score("test", 0.5)]
    return with_scores(description, scores, [score("dev", 0.4), score("test", 0.45)])


def outside_code(text: str) -> str:
    """Return Markdown without its code spans and blocks."""
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text, flags=re.DOTALL)


def test_the_front_matter_is_that_of_the_hub() -> None:
    card = ModelCard(card_text(scored()))
    data = card.data
    assert data.license == "apache-2.0"
    assert data.base_model == "owner/base"
    assert data.to_dict()["base_model_relation"] == "finetune"
    assert data.datasets == ["owner/talks"]
    assert data.library_name == "transformers"
    assert data.tags is not None and "selfemo" in data.tags
    assert data.model_name == "demo-g002"
    results = data.eval_results
    assert results is not None
    weighted = [r for r in results if r.metric_name == "Weighted F1"]
    assert [(r.dataset_split, r.metric_value) for r in weighted] == [("dev", 0.6), ("test", 0.5)]
    assert weighted[0].metric_args == {"average": "weighted", "interval95": [0.55, 0.65]}
    assert {r.metric_type for r in results} == {"f1", "accuracy"}
    data.to_yaml()


def test_the_text_has_figures_with_intervals_and_the_gain() -> None:
    text = card_text(scored())
    assert "| `dev` | 100 | 0.600 | 0.550 to 0.650 | 0.500 | 0.600 | 0.010 | +0.200 |" in text
    assert "| `test` | 100 | 0.500 | 0.450 to 0.550 | 0.400 | 0.500 | 0.010 | +0.050 |" in text
    assert "| `joy` | 0.600 | 0.500 |" in text
    assert "`file:///home/ann/dev.jsonl`" in text
    for heading in ("Labels", "Scores", "Data", "How to use it", "Limits", "Origin"):
        assert f"\n## {heading}\n" in text


def test_a_model_that_was_not_evaluated_has_no_figures() -> None:
    text = card_text(described())
    assert "This model has not been evaluated yet." in text
    card = ModelCard(text)
    assert card.data.eval_results is None and "model-index" not in card.data.to_dict()


def test_equal_descriptions_have_equal_cards() -> None:
    assert card_text(scored()) == card_text(scored())
    assert card_text(scored()) != card_text(described())


@pytest.mark.parametrize(
    ("uri", "base"),
    [
        ("package://smollm2?layers=6", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("hf://owner/base", "owner/base"),
        ("s3://bucket/model", None),
        ("hf://owner/a](http://evil)", None),
    ],
)
def test_the_base_model_is_named_where_the_hub_has_it(uri: str, base: str | None) -> None:
    description = describe(config(model={"uri": uri, "prompts": "compact-v1"}), weights={})
    card = ModelCard(card_text(description))
    assert card.data.base_model == base
    assert card.data.license == "unknown"
    assert "evil" not in outside_code(card.text)


def test_sources_of_one_dataset_are_results_of_their_own() -> None:
    dataset = DatasetSpec.model_validate(
        {
            "preset": Preset.MELD,
            "uri": "hf://owner/meld",
            "labels": LABELS,
            "sources": [
                {"name": "train", "use": "SelfPlay", "uri": "hf://owner/meld?split=train"},
                {"name": "dev", "use": "Evaluation", "uri": "hf://owner/meld?split=dev"},
                {"name": "test", "use": "Evaluation", "uri": "hf://owner/meld?split=test"},
            ],
        }
    )
    data = ModelCard(card_text(scored(dataset=dataset))).data
    assert data.language == "en" and data.datasets == ["owner/meld"]
    assert data.eval_results is not None
    names = {(r.dataset_name, r.dataset_type, r.dataset_split) for r in data.eval_results}
    assert names == {("MELD", "owner/meld", "dev"), ("MELD", "owner/meld", "test")}


def test_texts_of_users_are_shown_literally() -> None:
    description = scored(labels=[NASTY, "joy", "anger"])
    assert description.dataset is not None and description.origin is not None
    source = description.dataset.sources[1].model_copy(
        update={"uri": "file:///x`|<b>\n---\n# heading"}
    )
    dataset = description.dataset.model_copy(
        update={"sources": [description.dataset.sources[0], source]}
    )
    text = card_text(description.model_copy(update={"dataset": dataset}))
    card = ModelCard(text)
    assert card.data.base_model == "owner/base"
    literal = code(NASTY)
    assert literal.startswith("`` `*|<script>")
    outside = outside_code(card.text)
    assert "<script>" not in outside and "evil" not in outside and "<b>" not in outside
    assert "\n# heading" not in card.text
    for row in card.text.splitlines():
        if row.startswith("| `` `"):
            assert len(re.findall(r"(?<!\\)\|", row)) == 4, "the bars of the label are escaped"


def test_code_and_tables_hold_any_text() -> None:
    assert code("a\nb\x00c") == "`a b c`"
    assert code(" ") == ""
    assert code("``") == "``` `` ```"
    assert code_block("```\nx", "text") == "````text\n```\nx\n````"
    assert table(["a"], [["x|y"]]).endswith(r"| x\|y |")


@pytest.mark.parametrize("prompts", ["compact-v1", "chat-v1"])
def test_the_program_for_transformers_asks_as_selfemo_does(
    tiny_model: Path, prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfemo_jobs.models.fetch import load_tokenizer
    from selfemo_jobs.models.model_card import _CONTEXT, _TARGET
    from selfemo_jobs.models.model_description import prompt_set_of_description

    description = describe(config(model={"uri": "hf://o/b", "prompts": prompts}), weights={})
    text = card_text(description)
    (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    template = load_tokenizer(model).chat_template
    assert isinstance(template, str)
    # as those of Llama 3.2, SmolLM3 and Granite
    dated = "Today is {{ strftime_now('%d %b %Y') }}.\n" + template
    (model / "chat_template.jinja").write_text(dated)
    tokenizer = load_tokenizer(model)
    namespace: dict[str, object] = {}
    output = io.StringIO()
    monkeypatch.setattr(sys, "stdout", output)
    with contextlib.redirect_stdout(output), contextlib.suppress(IndexError):
        exec(program.replace('"FOLDER"', repr(str(model))), namespace)
    inputs = namespace["inputs"]
    ids = prompt_set_of_description(description).recognizer_ids(
        tokenizer, _CONTEXT, _TARGET.speaker, _TARGET.text, LABELS, max_tokens=1000
    )
    assert inputs["input_ids"][0].tolist() == ids  # type: ignore[index]
    assert isinstance(namespace["answer"], str)


def test_the_card_of_a_gguf_file_names_it() -> None:
    text = card_text(scored(weights_sha256={"demo.gguf": "d" * 64}), gguf="demo.gguf")
    assert ModelCard(text).data.library_name == "gguf"
    assert 'llama-server -m "demo.gguf"' in text and "from_pretrained" not in text
    assert "SHA-256 of `demo.gguf`" in text
