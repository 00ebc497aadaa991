"""``selfemo data``: checks and converts dialogues. It starts a program of the jobs' package."""

from __future__ import annotations

from selfemo_operator.cli.command import application
from selfemo_operator.cli.job_program import JobProgram

app = application("data", "Check or convert dialogues.")

_PROGRAM = JobProgram("selfemo_jobs.data_commands", "selfemo data")

_PROGRAM.add_command(
    app,
    "check",
    """Print dataset statistics and problems.

    The sources are files, folders, patterns or URIs, or the YAML file of one evolution. The report
    includes the number of dialogues, turns and labels, text lengths, unusual characters, duplicate
    dialogues, and dialogues shared by two sources.
    """,
)
_PROGRAM.add_command(app, "convert", "Convert dialogues from any supported format to JSON Lines.")
