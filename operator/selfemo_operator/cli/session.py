"""What holds for the whole command: its name, and how much it prints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Session:
    """The command that this process runs."""

    command: str = "selfemo"
    """The whole command, e.g. ``selfemo run``. It begins each error."""
    quiet: bool = False
    """Print only results and errors."""
    verbose: bool = False
    """Print verbose output, including tracebacks."""
    as_json: bool = False
    """Print results and errors as JSON."""

    def begin(self, program: str) -> None:
        """Forget an earlier command of this process.

        Parameters
        ----------
        program
            The program, e.g. ``selfemo``.
        """
        self.command, self.quiet, self.verbose, self.as_json = program, False, False, False


#: The command of this process.
SESSION = Session()
