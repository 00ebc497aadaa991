"""The prompts of the two roles, and the parsing of the recognizer's answers."""

from __future__ import annotations

from selfemo_jobs.prompts.answers import ParsedLabels, nearest_label, parse_labels
from selfemo_jobs.prompts.loader import load_prompt_set, parse_prompt_set, prompt_set_of
from selfemo_jobs.prompts.prompt_texts import prompt_set_names
from selfemo_jobs.prompts.sets import PromptSet, RenderedPrompt

__all__ = [
    "ParsedLabels",
    "PromptSet",
    "RenderedPrompt",
    "load_prompt_set",
    "nearest_label",
    "parse_labels",
    "parse_prompt_set",
    "prompt_set_names",
    "prompt_set_of",
]
