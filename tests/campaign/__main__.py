"""``python -m tests.campaign``: run a campaign, replay a scenario, or shrink one."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.campaign.campaign import BUILD, Campaign, Settings, campaign, run_lanes, shrink
from tests.campaign.defects import DEFECTS
from tests.campaign.forms import FORMS
from tests.campaign.journal import Journal, read_scenario
from tests.campaign.late_writer import violations

_DEFAULT = Settings()
_PARTS_ORACLE = "the parts that a manifest lists"
#: The longest time to look for a defect.
_DEFECT_MINUTES = 10.0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign",
        description="Faults from a seed against the operator and a real API server, with checks.",
    )
    parser.add_argument("--seed", type=int, default=_DEFAULT.seed)
    parser.add_argument("--size", type=int, default=_DEFAULT.size, help="evolutions a scenario")
    parser.add_argument(
        "--density", type=float, default=_DEFAULT.density, help="perturbations an evolution"
    )
    parser.add_argument("--form", choices=FORMS, help="the form of all scenarios")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--lanes", type=int, default=3, help="scenarios at the same time")
    parser.add_argument("--journal", type=Path, help="a file of JSON lines to write or continue")
    parser.add_argument("--replay", help="a scenario's file, or JOURNAL:NUMBER")
    parser.add_argument("--shrink", help="as --replay: make the scenario smaller while it fails")
    parser.add_argument("--defect", choices=sorted(DEFECTS), help="put a known defect back")
    return parser.parse_args()


def main() -> int:
    """Run the command; return 1 if a check did not hold."""
    arguments = _arguments()
    if arguments.defect and DEFECTS[arguments.defect].form == "late-writer":
        return _find_late_writer(arguments)
    with campaign(arguments.defect) as this:
        reference = this.reference()
        if reference.violations and not arguments.defect:
            print("the reference run violates checks:", *reference.violations, sep="\n   ")
            return 2
        if arguments.defect and not (arguments.replay or arguments.shrink):
            return _find(this, arguments)
        if arguments.replay:
            return _replay(this, arguments.replay)
        if arguments.shrink:
            return _shrink(this, arguments)
        return _run(this, arguments)


def _run(this: Campaign, arguments: argparse.Namespace) -> int:
    settings = Settings(arguments.seed, arguments.size, arguments.density, arguments.form)
    path = arguments.journal or BUILD / f"journal-{settings.seed}.jsonl"
    journal = Journal(path, settings.to_json())
    until = time.monotonic() + 60 * arguments.minutes
    run_lanes(this, settings, journal, arguments.lanes, until)
    print(journal.totals.text())
    for kind, number in sorted(journal.totals.kinds.items()):
        print(f"   {number:6} {kind}")
    for number in sorted(journal.totals.violated):
        print(f"replay: python -m tests.campaign --replay {path}:{number}")
    return 1 if journal.totals.violated else 0


def _find(this: Campaign, arguments: argparse.Namespace) -> int:
    """Run scenarios until they find a defect; return 1 if its oracle was not violated."""
    defect = DEFECTS[arguments.defect]
    settings = Settings(arguments.seed, arguments.size, 1.0, defect.form)
    path = BUILD / f"defect-{arguments.defect}-{this.name}.jsonl"
    journal = Journal(path, settings.to_json())
    until = time.monotonic() + 60 * min(arguments.minutes, _DEFECT_MINUTES)
    run_lanes(this, settings, journal, 2, until, first_violation=True)
    text = path.read_text()
    found = f'"oracle": "{defect.oracle}"' in text
    print(f"{arguments.defect}: {'found' if found else 'not found'} by {defect.oracle}")
    return 0 if found else 1


def _find_late_writer(arguments: argparse.Namespace) -> int:
    """Let attempts of a stage overlap with a defect; return 1 if no part is damaged."""
    wrong = violations(arguments.seed, arguments.defect)
    print(*wrong, sep="\n")
    print(f"{arguments.defect}: {'found' if wrong else 'not found'} by {_PARTS_ORACLE}")
    return 0 if wrong else 1


def _replay(this: Campaign, place: str) -> int:
    verdict = this.run(read_scenario(place))
    print(verdict.to_line())
    for violation in verdict.violations:
        print(violation)
    return 1 if verdict.violations else 0


def _shrink(this: Campaign, arguments: argparse.Namespace) -> int:
    path = shrink(this, read_scenario(arguments.shrink), 60 * arguments.minutes)
    if path is None:
        print("the scenario did not fail again")
        return 0
    print(path.read_text())
    print(f"replay: python -m tests.campaign --replay {path}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
