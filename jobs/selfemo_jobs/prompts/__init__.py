"""How the two roles are asked, and how their answers are read."""

from __future__ import annotations

from selfemo_jobs.prompts.answers import ParsedLabels, nearest_label, parse_labels
from selfemo_jobs.prompts.sets import PromptSet, Rendered, load_prompt_set, prompt_set_names

__all__ = [
    "ParsedLabels",
    "PromptSet",
    "Rendered",
    "load_prompt_set",
    "nearest_label",
    "parse_labels",
    "prompt_set_names",
]
