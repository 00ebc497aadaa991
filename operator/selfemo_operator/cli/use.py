"""The commands that use a model, and what each needs. Each is a program of the jobs' package."""

from __future__ import annotations

from collections.abc import Mapping

#: What each command does, by its name. Its options are those of the program.
USE_COMMANDS: Mapping[str, str] = {
    "predict": "Predict the emotions of each turn in dialogues, with a probability for each label.",
    "respond": "Write replies that express an emotion, and classify each with a judge.",
    "chat": "Chat with a model. It recognizes the emotion of each of your turns and replies "
    "with an emotion.",
    "export": "Copy a model with its description and model card to a folder, S3 or the Hugging "
    "Face Hub.",
    "compare": "Compare runs side by side: scores, gains with paired intervals, settings and cost.",
    "playground": "Open a local web page where a model recognizes emotions and replies.",
    "serve": "Serve a model with vLLM, for clients of the OpenAI API. Arguments after `--` are "
    "passed to `vllm serve`.",
}

#: The commands that run long, or until they are stopped: the program replaces this process, so that
#: each signal reaches it.
SERVERS = frozenset({"predict", "chat", "playground", "serve"})

#: The extras that a command needs, if it does not need just the libraries of the jobs.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "compare": ("report",),
    "playground": ("jobs", "playground"),
}
