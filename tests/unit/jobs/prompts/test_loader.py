"""Prompt sets of a person's own: files and texts of the spec."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.support.s3_server import S3Server

from selfemo_api.contract import StageConfig
from selfemo_api.results import StageResult
from selfemo_api.spec import EvolutionSpec, ModelSpec, Role
from selfemo_api.stages import Stage
from selfemo_jobs.datasets.dialogue import Utterance
from selfemo_jobs.errors import BadInput
from selfemo_jobs.prompts import PromptSet, load_prompt_set, parse_prompt_set, prompt_set_of
from selfemo_jobs.prompts.prompt_texts import MAX_FILE, MAX_TEXT, TEXT_NAMES
from selfemo_jobs.runtime.context import StageContext, StageOutput
from selfemo_jobs.runtime.manifest import read_manifest
from selfemo_jobs.runtime.program import StageProgram
from selfemo_jobs.runtime.stage_prompts import fetch_prompts, load_prompts, read_prompt_file
from selfemo_jobs.store import open_store
from selfemo_jobs.store.hashing import sha256

FILE = """\
# Prompts in German.
chat: false
recognize: |-
  {% for turn in context %}
  {{ turn.speaker }}: {{ turn.text }}
  {% endfor %}
  {{ speaker }}: {{ text }}
  Gefühl ({{ labels | join(", ") }}):
respond: |-
  {{ speaker }} fühlt {{ intended | join(" und ") }} und sagt:
"""
CONTEXT = (Utterance("Ann", "Hallo."),)


def load_file(uri: str) -> PromptSet:
    """Return the prompt set of a file on this machine, as a stage loads it."""
    return parse_prompt_set(read_prompt_file(uri, None), uri)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.yaml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_a_file_is_a_prompt_set(file: Path) -> None:
    prompts = load_file(file.as_uri())
    assert (
        prompts.recognizer_prompt(CONTEXT, "Ben", "Na gut.", ["Freude", "Wut"])
        == "Ann: Hallo.\nBen: Na gut.\nGefühl (Freude, Wut):"
    )
    assert (
        prompts.responder_prompt((), "Ben", ["Wut", "Freude"], ["Freude", "Wut"])
        == "Ben fühlt Wut und Freude und sagt:"
    )
    # the texts that it leaves out are those of its kind
    assert prompts.recognizer_text(["Wut", "Freude"]) == " Wut, Freude\n"
    assert prompts.stop(Role.RECOGNIZER) == prompts.stop(Role.RESPONDER) == ("\n",)
    assert not prompts.chat


def test_a_file_is_for_chats_unless_it_says_otherwise(file: Path) -> None:
    file.write_text(FILE.replace("chat: false\n", ""), encoding="utf-8")
    prompts = load_file(file.as_uri())
    assert prompts.chat
    assert prompts.recognizer_text(["Wut", "Freude"]) == "Wut, Freude"
    assert (prompts.stop(Role.RECOGNIZER), prompts.stop(Role.RESPONDER)) == ((), ("\n",))


def test_json_and_a_data_volume(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_json = tmp_path / "prompts.json"
    as_json.write_text("\ufeff" + json.dumps(yaml.safe_load(FILE), indent="\t"), encoding="utf-8")
    monkeypatch.setenv("SELFEMO_DATA", f"mine={tmp_path}")
    prompts = load_file("data://mine/prompts.json")
    expected = load_file(file.as_uri())
    arguments = (CONTEXT, "Ben", "Na gut.", ["Freude", "Wut"])
    assert prompts.recognizer_prompt(*arguments) == expected.recognizer_prompt(*arguments)


@pytest.mark.parametrize("name", ["chat-v1", "compact-v1", "chat-zh-v1", "compact-zh-v1"])
def test_a_copy_of_a_built_in_set_gives_the_same_prompts(name: str, tmp_path: Path) -> None:
    from importlib import resources

    copy = tmp_path / "copy.yaml"
    copy.write_bytes((resources.files("selfemo_jobs.prompts") / f"{name}.yaml").read_bytes())
    mine, built_in = load_file(copy.as_uri()), load_prompt_set(name)
    arguments = (CONTEXT, "Ben", "Na gut.", ["Freude", "Wut"])
    assert mine.recognizer_prompt(*arguments) == built_in.recognizer_prompt(*arguments)
    assert mine.responder_prompt(*arguments[:2], ["Wut"], ["Wut"]) == built_in.responder_prompt(
        *arguments[:2], ["Wut"], ["Wut"]
    )
    assert mine.recognizer_text(["Wut"]) == built_in.recognizer_text(["Wut"])
    assert mine.stops == built_in.stops


def test_texts_of_the_spec_replace_those_of_the_set() -> None:
    texts = {"recognize": "{{ speaker }} said {{ text }}. Feeling:", "between": " / "}
    with pytest.raises(BadInput, match=r"`model.promptTemplates`: the answer `joy / anger` would"):
        load_prompt_set("compact-v1", texts)
    prompts = load_prompt_set("compact-v1", {**texts, "between": "、"})
    assert prompts.recognizer_prompt((), "Ann", "Oh", ["joy"]) == "Ann said Oh. Feeling:"
    assert prompts.recognizer_text(["joy", "fear"]) == " joy、fear\n"
    base = load_prompt_set("compact-v1")
    assert prompts.responder_prompt((), "Ann", ["joy"], ["joy"]) == base.responder_prompt(
        (), "Ann", ["joy"], ["joy"]
    )
    model = ModelSpec(
        uri="file:///m", prompts="compact-v1", prompt_templates=texts | {"between": ","}
    )
    assert prompt_set_of(model).recognizer_text(["joy", "fear"]) == " joy,fear\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recogn": "x"}, r"`recogn` is not a part of a prompt set \(name, chat, recognize"),
        ({"respond": None}, "`respond` must be a text"),
        ({"chat": "yes"}, "`chat` must be true or false"),
        ({"before": 3}, "`before` must be a text"),
        ({"after": "!"}, "`after` does not contain `stopRecognizer`"),
        ({"stopResponder": ""}, "`after` does not contain `stopResponder`"),
        ({"before": "\n "}, "`stopRecognizer` would end a completion before its content"),
        ({"between": "\n"}, "`stopRecognizer` would end a completion before its content"),
        ({"between": " plus "}, "would not be read as two labels"),
        ({"before": "Emotion: "}, "would not be read as two labels"),
        ({"recognize": "{{ text }} {{ nam }}"}, "template `recognize` line 1: `nam` is not a var"),
        ({"respond": "x" * (MAX_TEXT + 1)}, f"`respond` has {MAX_TEXT + 1} characters, more than"),
    ],
)
def test_a_wrong_file_is_refused(file: Path, changes: dict[str, object], message: str) -> None:
    document = yaml.safe_load(FILE) | changes
    file.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    with pytest.raises(BadInput, match=message) as caught:
        load_file(file.as_uri())
    assert str(caught.value).startswith(f"`model.prompts` is {file.as_uri()}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file must have names and texts"),
        (b"- a\n- b\n", "the file must have names and texts"),
        (b"recognize: '{{ text }}'\n", "`respond` is missing"),
        (b"recognize: [", "the file is neither YAML nor JSON: "),
        (b"chat: true\nchat: false\n", "duplicate key 'chat'"),
        (b"recognize: \xff", "byte 11 is not UTF-8"),
        (b"#" * (MAX_FILE + 1), f"the file has more than {MAX_FILE} bytes"),
        (b"recognize: !!python/object/apply:os.system ['true']\n", "the file is neither YAML"),
    ],
)
def test_a_file_that_is_not_a_document_is_refused(file: Path, data: bytes, message: str) -> None:
    file.write_bytes(data)
    with pytest.raises(BadInput, match=re.escape(message)):
        load_file(file.as_uri())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"`model.prompts` is file:///nowhere: /nowhere does not ex"):
        load_file("file:///nowhere")
    with pytest.raises(BadInput, match=r"Is a directory"):
        load_file(tmp_path.as_uri())
    with pytest.raises(BadInput, match=r"reading S3 requires storage options"):
        load_file("s3://bucket/prompts.yaml")


def test_an_unknown_text_of_the_spec_is_refused() -> None:
    message = r"`model.promptTemplates` has `recognizer`: the names are recognize, respond, before"
    with pytest.raises(BadInput, match=message):
        load_prompt_set("chat-v1", {"recognizer": "{{ text }}"})
    with pytest.raises(BadInput, match=r"^`model.promptTemplates`: template `respond` line 1: `x`"):
        load_prompt_set("chat-v1", {"respond": "{{ x }}"})


SPEC_TEXTS = {"respond": "{{ speaker }} ({{ intended | join(', ') }}):"}


@pytest.fixture
def config(
    file: Path, make_spec: Callable[..., EvolutionSpec], make_config: Callable[..., StageConfig]
) -> StageConfig:
    model = {"prompts": file.as_uri(), "promptTemplates": SPEC_TEXTS}
    return make_config(Stage.SELF_PLAY, spec=make_spec(model=model))


def test_a_stage_gets_the_texts_of_the_file(config: StageConfig, file: Path) -> None:
    store = open_store(config.spec.storage)
    prompts = fetch_prompts(config, store)
    assert prompts.sha256 == sha256(file.read_bytes())
    file.unlink()  # it is read once
    compiled = prompt_set_of(prompts.config.spec.model)
    assert compiled.recognizer_prompt((), "Ben", "Na gut.", ["Wut"]).endswith("Gefühl (Wut):")
    assert compiled.responder_prompt((), "Ben", ["Wut"], ["Wut"]) == "Ben (Wut):"
    assert compiled.recognizer_text(["Wut"]) == " Wut\n"
    assert load_prompts(prompts.config.spec.model, store) == compiled
    # what the stage passes on is JSON
    again = StageConfig.model_validate_json(prompts.config.model_dump_json(by_alias=True))
    assert again == prompts.config
    with pytest.raises(BadInput, match="does not exist"):
        fetch_prompts(config, store)


def test_a_file_in_s3(
    s3: S3Server,
    make_spec: Callable[..., EvolutionSpec],
    make_config: Callable[..., StageConfig],
) -> None:
    storage = s3.storage("prompts").to_json()
    uri = f"{storage['uri']}/prompts.yaml"
    spec = make_spec(model={"prompts": uri}, storage=storage)
    config = make_config(Stage.SELF_PLAY, spec=spec)
    store = open_store(config.spec.storage)
    with pytest.raises(BadInput, match=r"`model.prompts` is s3://.*: the file does not exist"):
        fetch_prompts(config, store)
    store.put(uri, FILE.encode())
    prompts = fetch_prompts(config, store)
    assert prompts.sha256 == sha256(FILE.encode())
    assert load_prompts(config.spec.model, store).name == uri
    assert not prompt_set_of(prompts.config.spec.model).chat
    store.put(uri, b"recognize: 3\n")
    with pytest.raises(BadInput, match=rf"`model.prompts` is {uri}: `recognize` must be a text"):
        fetch_prompts(config, store)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StageProgram:
    monkeypatch.setenv("SELFEMO_WORK", str(tmp_path / "work"))

    def work(context: StageContext) -> StageOutput:
        assert prompt_set_of(context.config.spec.model).recognizer_text(["Wut"]) == " Wut\n"
        return StageOutput(rows=1)

    return StageProgram(Stage.SELF_PLAY, work, ("model.prompts", "model.promptTemplates"))


def test_the_hash_of_the_file_is_in_the_manifest(
    program: StageProgram, config: StageConfig, file: Path
) -> None:
    result = program.run(config)
    assert isinstance(result, StageResult)
    manifest, _ = read_manifest(open_store(config.spec.storage), result.manifest)
    assert manifest.config["model.prompts"] == f"sha256:{sha256(file.read_bytes())}"
    assert manifest.config["model.promptTemplates"] == SPEC_TEXTS


def test_a_changed_file_refuses_the_stored_result(
    program: StageProgram, config: StageConfig, file: Path, tmp_path: Path
) -> None:
    program.run(config)
    assert program.run(config).reused
    model = config.spec.model

    def with_model(**changes: object) -> StageConfig:
        spec = config.spec.model_copy(update={"model": model.model_copy(update=changes)})
        return config.model_copy(update={"spec": spec})

    moved = tmp_path / "moved.yaml"
    moved.write_bytes(file.read_bytes())
    assert program.run(with_model(prompts=moved.as_uri())).reused  # the content counts
    other_texts = {"respond": "{{ intended | first }}:"}
    with pytest.raises(BadInput, match=r"made with other settings \(`model.promptTemplates`\)"):
        program.run(with_model(prompt_templates=other_texts))
    with pytest.raises(BadInput, match=r"made with other settings \(`model.prompts`\)"):
        program.run(with_model(prompts="compact-v1"))
    file.write_text(FILE.replace("Gefühl", "Emotion"), encoding="utf-8")
    with pytest.raises(BadInput, match=r"made with other settings \(`model.prompts`\)"):
        program.run(config)


def test_a_wrong_template_is_refused_before_the_work(
    config: StageConfig, program: StageProgram
) -> None:
    model = config.spec.model.model_copy(
        update={"prompts": "chat-v1", "prompt_templates": {"recognize": "{{ txt }}"}}
    )
    spec = config.spec.model_copy(update={"model": model})
    with pytest.raises(
        BadInput, match=r"`model.promptTemplates`: template `recognize` line 1: `txt`"
    ):
        program.run(config.model_copy(update={"spec": spec}))


def test_the_file_of_the_guide_is_a_prompt_set() -> None:
    page = (Path(__file__).resolve().parents[4] / "docs/guides/languages.md").read_text()
    blocks = [b for b in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "\nrespond: " in b]
    assert len(blocks) == 1
    prompts = parse_prompt_set(blocks[0].encode(), "the guide")
    assert (
        prompts.responder_prompt(CONTEXT, "Ben", ["Wut"], ["Wut"])
        == "Ann: Hallo.\nBen fühlt Wut und sagt:"
    )
    assert all(f"`{name}`" in page for name in (*TEXT_NAMES, "chat", "name"))
