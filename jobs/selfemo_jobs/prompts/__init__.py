"""The prompts of the two roles, and the parsing of the recognizer's answers."""

from __future__ import annotations

from selfemo_jobs.prompts.answers import ParsedLabels, nearest_label, parse_labels
from selfemo_jobs.prompts.sets import PromptSet, RenderedPrompt, load_prompt_set, prompt_set_names

__all__ = [
    "ParsedLabels",
    "PromptSet",
    "RenderedPrompt",
    "load_prompt_set",
    "nearest_label",
    "parse_labels",
    "prompt_set_names",
]
