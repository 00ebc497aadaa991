"""Templates of a person's own: what they may use, and messages about what they may not."""

from __future__ import annotations

import re

import pytest

from selfemo_api.dataset_labels import MELD
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.errors import BadInput
from selfemo_jobs.prompts import load_prompt_set
from selfemo_jobs.prompts.template_checks import ShownTurn, compile_template

CONTEXT = (Utterance("Ann", "Hi.", ("joy",)), Utterance("Ben", "Hello.", ("anger",)))


def compile_recognize(text: str) -> str:
    template = compile_template("recognize", text, "here")
    context = [ShownTurn(turn.speaker, turn.text) for turn in CONTEXT]
    return template.render(context=context, speaker="Ann", text="Well.", labels=MELD, future=())


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{ text }}", "Well."),
        (
            "{% for t in context %}{{ loop.index }} {{ t.speaker | upper }} {% endfor %}{{ text }}",
            "1 ANN 2 BEN Well.",
        ),
        ("{{ labels | join('/') }}: {{ text }}", "/".join(MELD) + ": Well."),
        ("{% for t in context[-1:] %}{{ t.text }}{% endfor %}{{ text }}", "Hello.Well."),
        ("{% if context | length > 1 %}long {% else %}short {% endif %}{{ text }}", "long Well."),
        ("{{ speaker ~ ': ' ~ text }}", "Ann: Well."),
        ("{{ text }}{{ '' if future else '.' }}", "Well.."),
        ("{# a comment #}{% raw %}{{ x }}{% endraw %} {{ text }}", "{{ x }} Well."),
        (
            "{% for t in context if t.speaker != speaker %}{{ t.text }}{% endfor %} {{ text }}",
            "Hello. Well.",
        ),
        (
            "{% for a in labels %}{% for t in context %}{{ t }}{% endfor %}{% endfor %}{{ text }}",
            "Ann: Hi.Ben: Hello." * len(MELD) + "Well.",
        ),
    ],
)
def test_what_a_template_may_use(text: str, rendered: str) -> None:
    assert compile_recognize(text) == rendered


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ txt }} {{ text }}", "line 1: `txt` is not a variable of it; it has context, speaker"),
        ("{{ text }}\n{{ intended }}", "line 2: `intended` is not a variable"),
        ("Say it.", "it must show `text`"),
        ("{{ text ", "line 1: unexpected end of template"),
        ("{% for t in context %}{{ text }}", "Unexpected end of template"),
        (
            "{{ text }}{% for t in context %}{{ t.txt }}{% endfor %}",
            "`txt` is not a part of a turn",
        ),
        ("{{ text }}{{ context[0].speaker }}", "no element 0"),
        ("{{ text / 2 }}", "may not use `/`"),
        # labels of the dialogue
        ("{{ text }}{% for t in context %}{{ t.labels }}{% endfor %}", "`labels` is not a part"),
        ("{{ text }}{{ context[0]['labels'] }}", "only whole numbers"),
        ("{{ text }}{{ context | map(attribute='labels') | list }}", "`list` is not a filter"),
        # code
        ("{{ ''.__class__.__mro__ }}{{ text }}", "is not a part of a turn"),
        ("{{ text.format(1) }}", "may not use `a call, as f"),
        ("{{ lipsum() }}{{ text }}", "may not use `a call, as f"),
        ("{{ self }}{{ text }}", "`self` is not a variable"),
        ("{{ range }}{{ text }}", "`range` is not a variable"),
        ("{% include '/etc/passwd' %}{{ text }}", "may not use `include`"),
        ("{% import 'x' as y %}{{ text }}", "may not use `import`"),
        ("{% macro f() %}{% endmacro %}{{ text }}", "may not use `macro`"),
        ("{% set x = 1 %}{{ text }}", "may not use `set`"),
        ("{{ {'a': 1} }}{{ text }}", "may not use `a mapping`"),
        ("{{ text is sameas text }}", "`sameas` is not a test"),
        # size
        ("{{ text * 1000000000 }}", "may not use `*`"),
        ("{{ 10 ** 1000000000 }}{{ text }}", "may not use `**`"),
        ("{{ '%1000000000d' % 1 }}{{ text }}", "may not use `mod`"),
        ("{{ text | center(1000000000) }}", "`center` is not a filter"),
        ("{{ labels | join('a') | join('b') }}{{ text }}", "`join` needs a list"),
        ("{{ labels | join(text) }}", "`join` needs a list"),
        (
            "{% for a in labels %}{% for b in labels %}{% for c in labels %}{{ text }}"
            "{% endfor %}{% endfor %}{% endfor %}",
            "more than 2 loops",
        ),
        ("{% for t in context recursive %}{% endfor %}{{ text }}", "may not use"),
        ("{{" + "(" * 3000 + "text" + ")" * 3000 + "}}", "nested too deeply"),
        ("{{ 1" + "+1" * 4000 + " }}{{ text }}", "nested too deeply"),
        # names
        ("{% for text in labels %}{{ text }}{% endfor %}", "the variable of a loop is `text`"),
        ("{{ text if false else '' }}", "its prompt is empty"),
    ],
)
def test_what_a_template_may_not_use(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=re.escape(message)) as caught:
        compile_template("recognize", text, "here")
    assert str(caught.value).startswith("here: template `recognize`")
    assert "\n" not in str(caught.value)


def test_the_responder_has_other_variables() -> None:
    compile_template("respond", "{{ speaker }} ({{ intended | join(' & ') }}):", "here")
    with pytest.raises(
        BadInput, match=r"template `respond` line 1: `text` is not a variable of it"
    ):
        compile_template("respond", "{{ intended }} {{ text }}", "here")
    with pytest.raises(BadInput, match=r"template `respond`: it must show `intended`"):
        compile_template("respond", "{{ speaker }}:", "here")


def test_gold_labels_do_not_reach_the_prompt() -> None:
    """Whatever a template prints: it never sees the labels of a turn."""
    template = "{% for turn in context %}{{ turn }}\n{% endfor %}{{ context }} {{ text }}"
    prompts = load_prompt_set("compact-v1", {"recognize": template})
    prompt = prompts.recognizer_prompt(CONTEXT, "Ann", "Well.", ("sad",), CONTEXT)
    assert prompt == "Ann: Hi.\nBen: Hello.\n[Ann: Hi., Ben: Hello.] Well."
