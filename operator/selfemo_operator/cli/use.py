"""The commands that use a model, and what each needs. Each is a program of the jobs' package."""

from __future__ import annotations

from collections.abc import Mapping

#: What each command does, by its name. Its options are those of the program.
USE_COMMANDS: Mapping[str, str] = {
    "predict": "Predict the emotions of each turn of dialogues, with a probability for each label.",
    "respond": "Write replies with an emotion, each with the emotions that a judge reads in it.",
    "chat": "Chat with a model: it reads the emotion of each of your turns, and replies with one.",
    "export": "Copy a model with its description and its card to a folder, to S3 or to the hub.",
    "compare": "Show several runs side by side: scores, gains with paired intervals, settings and "
    "cost.",
    "playground": "Open a page on this machine on which a model reads dialogues and replies.",
    "serve": "Serve a model by vLLM, for clients of the OpenAI API. Arguments after `--` are those "
    "of `vllm serve`.",
}

#: The commands that run long, or until they are stopped: the program replaces this process, so that
#: each signal reaches it.
SERVERS = frozenset({"predict", "chat", "playground", "serve"})

#: The extras that a command needs, if it does not need just the libraries of the jobs.
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "compare": ("report",),
    "playground": ("jobs", "playground"),
}
