"""Prompts: reasoning blocks, chat templates, labels in answers, and lengths."""

from __future__ import annotations

import pytest
from tests.unit.jobs.stages.check.world import World

from selfemo_jobs.stages.check.prompts import open_reasoning

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


@pytest.fixture
def chat(world: World) -> World:
    """An input for a chat model."""
    world.spec["model"] |= {"prompts": "chat-v1", "maxPromptTokens": 512}
    return world


def set_template(world: World, text: str) -> None:
    (world.model / "chat_template.jinja").write_text(text)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("<think>\n", "<think>"),
        ("<think>\n\n</think>\n\n", ""),
        ("<Thinking>", "<Thinking>"),
        ("[THINK]", "[THINK]"),
        ("[THINK][/THINK]", ""),
        ("<|begin_of_thought|>", "<|begin_of_thought|>"),
        ("<|begin_of_thought|><|end_of_thought|>", ""),
        ("<seed:think>", "<seed:think>"),
        ("<reasoning>\n</reasoning>\n<think>", "<think>"),
        ("<|assistant|>\n<think>\n\n</think>\n<think>", "<think>"),  # a second block
        ("<scratchpad>\nFirst,", "<scratchpad>"),
        ("[/THINK][THINK]", "[THINK]"),
        ("<|begin_of_thinking|>\n", "<|begin_of_thinking|>"),
        ("</think>\n", ""),
        ("<|im_start|>assistant\n", ""),
        ("I think (a lot)", ""),
    ],
)
def test_blocks_of_reasoning(text: str, tag: str) -> None:
    assert open_reasoning(text) == tag


def test_a_template_that_closes_its_block_is_fine(chat: World) -> None:
    """As that of Qwen3: `enable_thinking=False` closes it."""
    set_template(
        chat,
        CHATML + "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
    )
    assert chat.problems() == []


def test_a_template_reads_the_date_of_all_prompts(chat: World) -> None:
    refused = "{% if strftime_now('%Y') != '2024' %}{{ raise_exception('too late') }}{% endif %}"
    set_template(chat, refused + CHATML)
    assert chat.problems() == []


def test_tags_in_a_dialogue_are_not_those_of_the_template(chat: World) -> None:
    def think(turn: dict[str, str]) -> None:
        turn["text"] += " <think>"

    chat.write_dialogues("dev", 6, 3, think)
    assert chat.problems() == []


def test_a_template_that_refuses_a_message_is_named(chat: World) -> None:
    set_template(chat, "{{ raise_exception('Conversations must begin with the system') }}")
    assert chat.problems() == [
        "model.prompts: the model's chat template rejects a user message: Conversations must "
        "begin with the system"
    ]


def test_a_template_that_drops_the_message_is_named(chat: World) -> None:
    set_template(chat, "{% for m in messages %}<|im_start|>{{ m.role }}{% endfor %}")
    assert chat.problems() == ["model.prompts: the model's chat template omits the user message"]


def test_a_template_that_uses_a_missing_function_is_named(chat: World) -> None:
    set_template(chat, "{{ messages[0].content | unknown }}")
    (line,) = chat.problems()
    assert line.startswith("model.prompts: the model's chat template rejects a user message")


def test_a_label_with_the_end_of_an_answer_is_named(chat: World) -> None:
    chat.spec["model"]["promptTemplates"] = {"stopRecognizer": "ness"}
    assert chat.problems() == [
        "dataset.labels: the answer `sadness` is parsed as no label: rename the label, and map "
        "it in `dataset.labelMap`"
    ]


def test_labels_that_are_the_same_in_an_answer_are_named_once(world: World) -> None:
    world.spec["dataset"]["labels"] = [*world.spec["dataset"]["labels"], "joy\ufe0f"]
    assert [line for line in world.problems() if line.startswith("dataset.labels")] == [
        "dataset.labels: `joy` and `joy\ufe0f` are the same in an answer, where character "
        "widths, spaces and character variants are ignored: rename one of them"
    ]


def test_labels_of_other_scripts_are_fine(world: World) -> None:
    labels = {"neutral": "平静", "joy": "喜悦", "sadness": "悲伤", "anger": "愤怒"}

    def translate(turn: dict[str, list[str]]) -> None:
        turn["labels"] = [labels[label] for label in turn["labels"]]

    for name, start, count in (("train", 0, 6), ("dev", 6, 3), ("extra", 9, 3)):
        world.write_dialogues(name, start, count, translate)
    world.spec["dataset"]["labels"] = list(labels.values())
    assert world.problems() == [
        "overrides.selfPlay.maxTokens.recognizer: is 6, but the label `平静` has 7 tokens of this "
        "model: set 7 or more"
    ]
    world.override(selfPlay={"maxTokens": {"recognizer": 8}})
    assert world.problems() == []


def test_the_judge_is_not_asked_where_it_has_no_weight(world: World) -> None:
    world.override(reward={"judge": {"maxTokens": 1}})
    world.spec["dataset"]["labels"] = [*world.spec["dataset"]["labels"], "bliss"]
    assert [line.partition(":")[0] for line in world.problems()] == [
        "overrides.reward.judge.maxTokens"
    ]
    world.spec["reward"] = {"judge": {"weight": 0}}
    world.spec["selfPlay"] = {"roles": ["Recognizer"]}
    assert world.problems() == []


def test_the_responder_shows_the_utterance_that_it_answers(world: World) -> None:
    shown = "{% for turn in context %}" + "{{ turn.text }} " * 20 + "{% endfor %}"
    respond = shown + "{{ intended | join(', ') }}"
    world.spec["model"] |= {"maxPromptTokens": 100, "promptTemplates": {"respond": respond}}
    (line,) = world.problems()
    assert "utterances do not fit in the responder's prompt, which responds to them" in line
    most = line.rsplit(" set ", 1)[1].split()[0]
    world.spec["model"]["maxPromptTokens"] = int(most)
    assert world.problems() == []


def test_the_responder_needs_its_prompt_too(world: World) -> None:
    world.spec["model"] |= {
        "maxPromptTokens": 100,
        "promptTemplates": {"respond": "Be brief. " * 60 + "{{ intended | join(', ') }}"},
    }
    (line,) = world.problems()
    assert line.startswith(
        "model.maxPromptTokens: is 100, but the responder's prompt has "
    ) and line.endswith(" tokens even without context: set " + line.rsplit(" set ", 1)[1])
    world.spec["selfPlay"] = {"roles": ["Recognizer"]}
    assert world.problems() == []


def test_a_prompt_set_of_ones_own_is_read(world: World) -> None:
    path = world.folder / "prompts.yaml"
    world.spec["model"]["prompts"] = f"file://{path}"
    assert world.problems() == [
        f"model.prompts: is file://{path}: {path} does not exist",
    ]


def test_the_responder_answers_no_other_evaluation_source(world: World) -> None:
    shown = "{% for turn in context %}" + "{{ turn.text }} " * 20 + "{% endfor %}"
    respond = shown + "{{ intended | join(', ') }}"
    world.spec["model"] |= {"promptTemplates": {"respond": respond}, "maxPromptTokens": 100}
    (line,) = world.problems()
    world.spec["model"]["maxPromptTokens"] = int(line.rsplit(" set ", 1)[1].split()[0])

    def lengthen(turn: dict[str, str]) -> None:
        turn["text"] += " And that is all that I have to say."

    world.write_dialogues("extra", 9, 3, lengthen)
    assert world.problems() == []
    world.write_dialogues("dev", 6, 3, lengthen)
    assert len(world.problems()) == 1


def test_the_responder_speaks_for_a_speaker_of_the_same_dialogue(world: World) -> None:
    said = "{% for turn in context %}" + "{{ turn.text }} " * 9 + "{% endfor %}"
    respond = said + "{{ speaker }}: {{ intended | join(', ') }}"
    world.spec["model"] |= {"promptTemplates": {"respond": respond}, "maxPromptTokens": 100}
    (line,) = world.problems()
    world.spec["model"]["maxPromptTokens"] = int(line.rsplit(" set ", 1)[1].split()[0])
    world.write_dialogues("train", 0, 6, lambda turn: turn.update(speaker="Annabelle", text="Hi."))
    assert world.problems() == []
    world.write_dialogues("train", 0, 6, lambda turn: turn.update(speaker="Annabelle"))
    assert len(world.problems()) == 1
