"""A short campaign, the parts of a campaign that need no cluster, and the known defects."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign import defects
from tests.campaign.campaign import Campaign, Settings, campaign, run_lanes
from tests.campaign.forms import FORMS, form_of, generated
from tests.campaign.journal import Journal, read_scenario
from tests.campaign.late_writer import violations
from tests.campaign.model import Evolution, Perturbation, Scenario, Verdict, scenario_from
from tests.campaign.perturbations import PERTURBATIONS
from tests.campaign.shrinking import shrunk
from tests.support.cluster import Unavailable

SHORT = Settings(seed=1, size=8, density=2.0)
#: Seconds in which the short campaign starts scenarios. Each takes about a minute.
SHORT_SECONDS = 20.0


@pytest.fixture(scope="module")
def short() -> Iterator[Campaign]:
    try:
        with campaign() as this:
            yield this
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.mark.e2e
@pytest.mark.cluster
@pytest.mark.timeout(400)
@pytest.mark.xdist_group("campaign")
def test_a_short_campaign_finds_nothing(short: Campaign, tmp_path: Path) -> None:
    reference = short.reference()
    assert reference.violations == []
    journal = Journal(tmp_path / "journal.jsonl", SHORT.to_json())
    run_lanes(short, SHORT, journal, 3, time.monotonic() + SHORT_SECONDS)
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()[1:]]
    assert [line["violations"] for line in lines if line["violations"]] == []
    assert journal.totals.perturbations >= 20
    assert journal.totals.checks >= 1000


def test_a_scenario_follows_from_seed_and_number() -> None:
    for number, form in enumerate(FORMS):
        one, same = (generated(number, 7, 10, 2.0, form) for _ in range(2))
        assert one == same == scenario_from(json.loads(json.dumps(one.to_json())))
        assert one != generated(number, 8, 10, 2.0, form)
        targets = {e.name for e in one.evolutions}
        assert all(p.target in ("", *targets) for p in one.perturbations)
        assert all(p.kind in PERTURBATIONS or p.kind == "field" for p in one.perturbations)


def test_each_form_comes_within_the_first_scenarios() -> None:
    assert {form_of(number) for number in range(25)} == set(FORMS) - {"purge"}


def test_a_journal_resumes_and_refuses_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    scenario = generated(3, 1, 4, 1.0)
    first = Journal(path, {"seed": 1})
    first.add(Verdict(scenario, applied=["lost-reply"], checks=5))
    with path.open("a") as file:
        file.write('{"scenario": {"num')  # the process was killed here
    again = Journal(path, {"seed": 1})
    assert again.done == {3}
    assert (again.totals.perturbations, again.totals.checks) == (1, 5)
    assert read_scenario(f"{path}:3") == scenario
    with pytest.raises(ValueError, match="other settings"):
        Journal(path, {"seed": 2})


def test_a_scenario_shrinks_to_what_fails() -> None:
    evolutions = tuple(Evolution(f"plain-{i}") for i in range(8))
    perturbations = tuple(Perturbation("lost-reply", i, f"plain-{i % 8}") for i in range(20))
    scenario = Scenario(0, 1, evolutions, perturbations)

    def fails(candidate: Scenario) -> bool:
        places = {p.at for p in candidate.perturbations}
        return {3, 11} <= places and "plain-5" in {e.name for e in candidate.evolutions}

    small = shrunk(scenario, fails)
    assert [p.at for p in small.perturbations] == [3, 11]
    assert {e.name for e in small.evolutions} == {"plain-3", "plain-5"}


@pytest.mark.parametrize("name", sorted(defects.DEFECTS))
def test_the_place_of_each_defect_is_there(name: str) -> None:
    defects.check(name)


def test_a_defect_whose_place_has_moved_is_an_error() -> None:
    name = sorted(defects.DEFECTS)[0]
    module = defects.DEFECTS[name].edits[0].module
    with pytest.raises(defects.MovedDefect, match="is 0 times in"):
        defects.edited_source(name, module, "nothing\n")


@pytest.mark.slow
@pytest.mark.parametrize(("defect", "damaged"), [(None, False), ("late-writer", True)])
def test_an_attempt_that_lost_damages_nothing(defect: str | None, damaged: bool) -> None:
    assert bool(violations(1, defect)) == damaged
