"""Known defects that can be put back, to show that the campaign finds them.

Each is a replacement in the source of one module, made while the module is imported. It fails with
a clear error if its place has moved, so a defect cannot silently be absent.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


class MovedDefect(Exception):
    """The place of a defect in the source is not there, or not unique."""


@dataclass(frozen=True)
class Edit:
    """One replacement in a module's source."""

    module: str
    old: str
    new: str


@dataclass(frozen=True)
class Defect:
    """A defect, and the form of the scenarios that find it."""

    edits: tuple[Edit, ...]
    form: str
    oracle: str
    """The oracle that must be violated."""


_PURGE = "selfemo_operator.controller.reconcile.purge"
_JOBS = "selfemo_operator.controller.objects.jobs"

DEFECTS: dict[str, Defect] = {
    # a refused evolution has a purge Job with all that was refused, and its deletion starts it
    "refused-purge": Defect(
        (
            Edit(_PURGE, "if refusal(evolution, self._settings.jobs):", "if False:"),
            Edit(
                _PURGE,
                'if problem := pod_refusal(current["spec"]["template"], self._settings.jobs):',
                'if problem := "":',
            ),
            Edit(
                _JOBS,
                "    pod = gated_pod(base, spec.pod_template, None, settings)\n",
                "    from selfemo_operator.controller.objects.pod_template import apply_templates\n"
                "    pod = apply_templates(base, spec.pod_template, None)\n",
            ),
        ),
        "purge",
        "O10 restricted",
    ),
    # an edit from `Delete` to `Retain` that no pass has seen is ignored by the purge
    "retain-ignored": Defect(
        (
            Edit(
                _PURGE,
                "last = self._history.last_state(key, uid, seen_version(job))",
                "last = None",
            ),
            Edit(_PURGE, "elif self._history.is_awaited(uid):", "elif False:"),
        ),
        "purge",
        "O4 data",
    ),
    # parts have fixed names, so an attempt that lost overwrites those of the one that won
    "late-writer": Defect(
        (
            Edit(
                "selfemo_jobs.runtime.manifest",
                'return f"{folder}{slash}{stem}-{digest[:NAME_DIGITS]}{dot}{ending}"',
                "return path",
            ),
        ),
        "late-writer",
        "parts",
    ),
}


def edited_source(name: str, module: str, source: str) -> str:
    """Return the source of a module with a defect in it.

    Parameters
    ----------
    name
        The name of the defect.
    module
        The name of the module.
    source
        Its source.
    """
    for edit in DEFECTS[name].edits:
        if edit.module != module:
            continue
        count = source.count(edit.old)
        if count != 1:
            raise MovedDefect(
                f"defect {name}: its place is {count} times in {module}, instead of once: adapt "
                f"tests/campaign/defects.py to the new source\n{edit.old}"
            )
        source = source.replace(edit.old, edit.new)
    return source


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, defect: str) -> None:
        super().__init__(fullname, path)
        self._defect = defect

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        path = self.get_filename(fullname)
        text = self.get_data(path).decode()
        return compile(edited_source(self._defect, fullname, text), path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, defect: str) -> None:
        self._defect = defect
        self._modules = {edit.module for edit in DEFECTS[defect].edits}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._modules:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin is None:
            raise MovedDefect(f"defect {self._defect}: there is no module {fullname}")
        return importlib.util.spec_from_file_location(
            fullname, spec.origin, loader=_Loader(fullname, spec.origin, self._defect)
        )


def check(name: str) -> None:
    """Raise MovedDefect if the place of a defect has moved."""
    for edit in DEFECTS[name].edits:
        spec = importlib.util.find_spec(edit.module)
        if spec is None or spec.origin is None:
            raise MovedDefect(f"defect {name}: there is no module {edit.module}")
        edited_source(name, edit.module, Path(spec.origin).read_text())


def install(name: str) -> None:
    """Put a defect into the modules that this process imports from now on."""
    loaded = [edit.module for edit in DEFECTS[name].edits if edit.module in sys.modules]
    if loaded:
        raise MovedDefect(f"defect {name}: {loaded} is imported already")
    check(name)
    for edit in DEFECTS[name].edits:  # `check` imports the packages, not the modules
        sys.modules.pop(edit.module, None)
    sys.meta_path.insert(0, _Finder(name))
