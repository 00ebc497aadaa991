"""``selfemo data``: checks and converts dialogues. It starts a program of the jobs' package."""

from __future__ import annotations

from selfemo_operator.cli.command import application
from selfemo_operator.cli.job_program import JobProgram

app = application("data", "Check or convert dialogues.")

_PROGRAM = JobProgram("selfemo_jobs.data_commands", "selfemo data")

_PROGRAM.add_command(
    app,
    "check",
    """Print figures of dialogues, and what is wrong with them.

    The sources are files, folders, patterns or URIs, or the YAML file of one evolution. The report
    has the counts of dialogues, turns and labels, the lengths, odd characters, dialogues that are
    repeated, and dialogues that two sources share.
    """,
)
_PROGRAM.add_command(app, "convert", "Write the dialogues of any readable format as JSON Lines.")
