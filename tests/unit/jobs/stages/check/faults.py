"""Faults that a person can make in an input, each with the line that the check finds for it.

docs/guides/check.md lists them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.unit.jobs.stages.check.world import World


@dataclass(frozen=True)
class Fault:
    """A fault, and what the check must find."""

    name: str
    """The name in docs/guides/check.md."""
    plant: Callable[[World], None]
    """Makes the fault."""
    line: str
    """The whole line. `{folder}` is the folder of the input."""
    together: bool = False
    """Whether it is among the faults that are planted together."""

    def expected(self, world: World) -> str:
        """Return the line for an input."""
        return self.line.replace("{folder}", str(world.folder))


def _missing_file(world: World) -> None:
    (world.folder / "dev.jsonl").unlink()


def _broken_line(world: World) -> None:
    with (world.folder / "train.jsonl").open("a") as file:
        file.write('{"id": "last", "turns": [\n')


def _unknown_label(world: World) -> None:
    def bored(turn: dict[str, Any]) -> None:
        if turn["labels"] == ["joy"]:
            turn["labels"] = ["delight"]

    world.write_dialogues("dev", 6, 3, bored)


def _wrong_label_map(world: World) -> None:
    world.spec["dataset"]["labelMap"] = {"delight": "hapiness"}


def _no_labels(world: World) -> None:
    world.write_dialogues("extra", 9, 3, lambda turn: turn.pop("labels"))


def _offset(world: World) -> None:
    world.sources[2]["offset"] = 3


def _all_labeled(world: World) -> None:
    world.spec["dataset"]["labeledDialogues"] = 6


def _missing_column(world: World) -> None:
    (world.folder / "dev.csv").write_text("dialogue,speaker,said,label\n1,Ann,Well.,joy\n")
    world.sources[1]["uri"] = f"file://{world.folder}/dev.csv"


def _long_utterance(world: World) -> None:
    def endless(turn: dict[str, Any]) -> None:
        if turn["text"].endswith("dialogue 9 very well, part 0."):
            turn["text"] = "no " * 300

    world.write_dialogues("extra", 9, 3, endless)


def _ambiguous_labels(world: World) -> None:
    world.spec["dataset"]["labels"] = [*world.spec["dataset"]["labels"], "Joy"]


def _short_answers(world: World) -> None:
    world.override(selfPlay={"maxTokens": {"recognizer": 1}})
    world.spec["dataset"]["labels"] = [*world.spec["dataset"]["labels"], "bewilderment"]


def _short_readings(world: World) -> None:
    world.override(reward={"judge": {"maxTokens": 1}})
    world.spec["dataset"]["labels"] = [*world.spec["dataset"]["labels"], "awe"]


def _unknown_prompts(world: World) -> None:
    world.spec["model"]["prompts"] = "chat-v9"


def _broken_template(world: World) -> None:
    world.spec["model"]["promptTemplates"] = {"recognize": "{{ speaker }}: {{ utterance }}"}


def _no_chat_template(world: World) -> None:
    world.spec["model"]["prompts"] = "chat-v1"
    world.spec["model"]["maxPromptTokens"] = 512
    (world.model / "chat_template.jinja").unlink()


def _reasoning(world: World) -> None:
    world.spec["model"]["prompts"] = "chat-v1"
    world.spec["model"]["maxPromptTokens"] = 512
    template = world.model / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant\n", "assistant\n<think>\n"))


def _missing_model(world: World) -> None:
    world.spec["model"]["uri"] = "data://models/qwen"


def _cut_weights(world: World) -> None:
    path = world.model / "model.safetensors"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1000)


def _pickled_weights(world: World) -> None:
    (world.model / "model.safetensors").rename(world.model / "pytorch_model.bin")


def _adapter(world: World) -> None:
    (world.model / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def _quantized(world: World) -> None:
    world.edit_config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


def _encoder(world: World) -> None:
    world.edit_config(model_type="t5", architectures=["T5ForConditionalGeneration"])


def _own_code(world: World) -> None:
    code = {"AutoConfig": "configuration_chatglm.ChatGLMConfig"}
    world.edit_config(model_type="chatglm", architectures=["ChatGLMModel"], auto_map=code)


def _few_positions(world: World) -> None:
    world.edit_config(max_position_embeddings=128)


def _linear_attention(world: World) -> None:
    types = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
    world.edit_config(
        model_type="qwen3_next", architectures=["Qwen3NextForCausalLM"], layer_types=types
    )


def _too_many_layers(world: World) -> None:
    world.spec["training"] = {"trainLayers": 4}


def _missing_module(world: World) -> None:
    world.spec["training"] = {"lora": {"rank": 4}}
    world.override(training={"lora": {"targetModules": ["q_proj", "qkv_proj"]}})


def _foreign_tokenizer(world: World) -> None:
    path = world.model / "tokenizer.json"
    content = json.loads(path.read_text())
    token = {"content": "<extra>", "special": False, "normalized": False, "single_word": False}
    content["added_tokens"].append({"id": 9000, "lstrip": False, "rstrip": False, **token})
    path.write_text(json.dumps(content))


def _missing_tokenizer(world: World) -> None:
    for path in world.model.glob("tokenizer*"):
        path.unlink()


def _storage_is_a_file(world: World) -> None:
    (world.folder / "storage").write_text("")


def _publish_into_other_files(world: World) -> None:
    (world.folder / "shared").mkdir()
    (world.folder / "shared" / "thesis.tex").write_text("mine")
    world.spec["publish"] = f"file://{world.folder}/shared"


def _publish_to_a_file(world: World) -> None:
    (world.folder / "published").write_text("")
    world.spec["publish"] = f"file://{world.folder}/published"


def _publish_into_the_run(world: World) -> None:
    world.spec["publish"] = f"file://{world.folder}/storage"


def _publish_without_a_token(world: World) -> None:
    world.spec["publish"] = "hf://ann/emotions"


def _several_machines(world: World) -> None:
    world.spec["resources"] = {"nodes": 2}
    world.spec["training"] = {"batchSize": 16}


def _no_gpu(world: World) -> None:
    world.spec["resources"] = {"gpusPerNode": 1}


def _device_without_gpu(world: World) -> None:
    world.spec["selfPlay"] = {"engineArgs": {"device": "cuda"}}


def _broken_rule(world: World) -> None:
    world.spec["selfPlay"] = {"groupSize": 3}


#: The faults. Those of S3, of what is installed, and of memory are in tests of their own.
FAULTS = (
    Fault(
        "a source does not exist",
        _missing_file,
        "dataset.sources[1].uri: file://{folder}/dev.jsonl: {folder}/dev.jsonl does not exist",
        together=True,
    ),
    Fault(
        "a source contains an invalid line",
        _broken_line,
        "dataset.sources[0].uri: file://{folder}/train.jsonl line 7: not JSON: Expecting value",
    ),
    Fault(
        "a label is not in the label set",
        _unknown_label,
        "dataset.sources[1].uri: file://{folder}/dev.jsonl line 1: `labels` is `delight`, an "
        "unknown emotion: `dataset.labels` contains neutral, joy, sadness, anger. 3 of 12 "
        "labels do not match (delight: 3): fix the file or `dataset.labels`, or map them in "
        "`dataset.labelMap`",
    ),
    Fault(
        "a label is mapped to one that is not in the label set",
        _wrong_label_map,
        "dataset.labelMap[delight]: `hapiness` is not in `dataset.labels`, which contains "
        "neutral, joy, sadness, anger",
        together=True,
    ),
    Fault(
        "an evaluation source has no labels",
        _no_labels,
        "dataset.sources[2]: no turn has a label, but an evaluation source needs them",
    ),
    Fault(
        "`offset` leaves no dialogues",
        _offset,
        "dataset.sources[2].offset: is 3, but file://{folder}/extra.jsonl has 3 dialogues: none is "
        "left",
        together=True,
    ),
    Fault(
        "`labeledDialogues` leaves no dialogues",
        _all_labeled,
        "dataset.labeledDialogues: is 6, but file://{folder}/train.jsonl has 6 dialogues: none is "
        "left without labels; set less",
        together=True,
    ),
    Fault(
        "a column does not exist",
        _missing_column,
        "dataset.sources[1].uri: file://{folder}/dev.csv: no column contains the text: specify "
        "it in `dataset.columns.text` (columns in the file: dialogue, speaker, said, label)",
    ),
    Fault(
        "an utterance exceeds the maximum prompt length",
        _long_utterance,
        "model.maxPromptTokens: is 256, but 1 of 48 prompts are longer even without context "
        "(the longest: dialogue extra-9 of source `extra`, 307 tokens): set 307 or more, or "
        "split the utterances",
    ),
    Fault(
        "two labels differ only in case",
        _ambiguous_labels,
        "dataset.labels: `joy` and `Joy` are the same label: labels are not case-sensitive",
    ),
    Fault(
        "a label exceeds the maximum length of an answer",
        _short_answers,
        "overrides.selfPlay.maxTokens.recognizer: is 1, but the label `bewilderment` has 9 "
        "tokens of this model: set 9 or more",
    ),
    Fault(
        "a label exceeds the maximum length of a judge prediction",
        _short_readings,
        "overrides.reward.judge.maxTokens: is 1, but the label `awe` has 2 tokens of this "
        "model: set 2 or more",
    ),
    Fault(
        "the prompt set does not exist",
        _unknown_prompts,
        "model.prompts: is chat-v9: there is no such set (there are: chat-v1, chat-zh-v1, "
        "compact-v1, compact-zh-v1)",
    ),
    Fault(
        "a prompt template contains an unknown variable",
        _broken_template,
        "model.promptTemplates: template `recognize` line 1: `utterance` is not a variable of"
        " it; it has context, speaker, text, labels, future",
        together=True,
    ),
    Fault(
        "the model has no chat template",
        _no_chat_template,
        "model.prompts: chat-v1 is for chats, but the model's tokenizer has no chat template:"
        " use `compact-v1`",
    ),
    Fault(
        "the chat template opens a reasoning block",
        _reasoning,
        "model.uri: the model's chat template opens a reasoning block (`<think>`) before each "
        "answer, and does not close it with `enable_thinking=False`: use a model that answers "
        "immediately, or a copy with another chat template",
    ),
    Fault(
        "the model does not exist",
        _missing_model,
        "model.uri: data://models/qwen (/data/models/qwen) does not exist",
    ),
    Fault(
        "the model is an unfinished download",
        _cut_weights,
        "model.uri: file://{folder}/model: model.safetensors is an unfinished download: "
        "3416840 of 3417840 bytes",
        together=True,
    ),
    Fault(
        "the weights are pickled",
        _pickled_weights,
        "model.uri: file://{folder}/model contains no *.safetensors; it contains "
        "pytorch_model.bin, but only safetensors is supported: convert it",
    ),
    Fault(
        "an adapter is in the same folder as the weights",
        _adapter,
        "model.uri: file://{folder}/model contains a model and an adapter "
        "(adapter_config.json): merge the adapter into the model, or remove its files",
    ),
    Fault(
        "the model is quantized",
        _quantized,
        "model.uri: the model is quantized (bitsandbytes, 4 bits): training writes "
        "full-precision weights, so use the unquantized model",
        together=True,
    ),
    Fault(
        "the model is not a decoder",
        _encoder,
        "model.uri: `model_type` t5 is not a decoder that this version of Transformers "
        "supports: use another model",
    ),
    Fault(
        "the model requires custom code",
        _own_code,
        "model.uri: the model (`model_type` chatglm) requires custom code, which is never run: "
        "use a model that Transformers supports",
    ),
    Fault(
        "the model has too few positions",
        _few_positions,
        "model.maxPromptTokens: is 256, and with 12 completion tokens the model needs a context "
        "of 268, but it supports 128; set at most 116",
        together=True,
    ),
    Fault(
        "the engine does not support the model's layers",
        _linear_attention,
        "selfPlay.engine: is Transformers, which cannot share prompts in a model with layers of "
        "the type linear_attention (`model_type` qwen3_next): use VLLM, or another model",
    ),
    Fault(
        "`trainLayers` is too large for the model",
        _too_many_layers,
        "training.trainLayers: is 4, but the model has 4 layers: set less, or 0 to train all",
    ),
    Fault(
        "a LoRA target module does not exist",
        _missing_module,
        "overrides.training.lora.targetModules: the model has no module `qkv_proj`: it has "
        "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
    ),
    Fault(
        "the tokenizer belongs to another model",
        _foreign_tokenizer,
        "model.uri: the tokenizer has 512 tokens, but the model has 511: use the model's tokenizer",
    ),
    Fault(
        "the model has no tokenizer",
        _missing_tokenizer,
        "model.uri: file://{folder}/model contains no tokenizer (tokenizer.json, "
        "tokenizer.model or vocab.json)",
    ),
    Fault(
        "the storage is not writable",
        _storage_is_a_file,
        "storage.uri: {folder}/storage/default/checked-36f0499c/generations/000/check: Not a "
        "directory: choose another location",
        together=True,
    ),
    Fault(
        "`publish` contains other files",
        _publish_into_other_files,
        "publish: file://{folder}/shared contains other files (thesis.tex): choose an empty "
        "destination, or remove them",
        together=True,
    ),
    Fault(
        "`publish` is not writable",
        _publish_to_a_file,
        "publish: {folder}/published: Not a directory: choose another location",
    ),
    Fault(
        "`publish` and the storage overlap",
        _publish_into_the_run,
        "publish: file://{folder}/storage and the run's folder, "
        "file://{folder}/storage/default/checked-36f0499c, overlap: choose another destination",
    ),
    Fault(
        "`publish` is on the Hub, and there is no token",
        _publish_without_a_token,
        "publish: hf://ann/emotions: the Hub requires a token to write: set HF_TOKEN, or run "
        "`hf auth login`",
    ),
    Fault(
        "the run needs several machines, but only one is available",
        _several_machines,
        "resources.nodes: is 2, but this run uses one machine: set 1, or run it on a cluster",
        together=True,
    ),
    Fault(
        "a GPU is missing",
        _no_gpu,
        "resources.gpusPerNode: is 1, but this machine has no GPU: set 0",
    ),
    Fault(
        "the engine's device is a GPU, and there is none",
        _device_without_gpu,
        "selfPlay.engineArgs.device: is cuda, but this machine has no GPU: omit `device`",
    ),
    Fault(
        "a rule across fields is violated",
        _broken_rule,
        "spec: `training.batchSize` must be a multiple of `selfPlay.groupSize`: groups are not "
        "split",
        together=True,
    ),
)
