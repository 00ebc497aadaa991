from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.study.made_up import DOCUMENT, finish, study

from selfemo_study.comparison import collect
from selfemo_study.paths import Places
from selfemo_study.published import publish, restore

RIGHT = {(0, "dev"): 1, (1, "dev"): 2, (0, "test"): 1, (1, "test"): 2}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(tmp_path / "here")
    for seed in (1, 2):
        finish(study(), found, "main", seed, RIGHT, ["Baseline", "Promoted"], best=1)
    return found


def test_a_kept_row_is_done_elsewhere(places: Places, tmp_path: Path) -> None:
    kept, elsewhere = tmp_path / "kept", Places(tmp_path / "elsewhere")
    assert publish(study(), places, kept) == ["main-1", "main-2"]
    assert restore(study(), elsewhere, kept) == ["main-1", "main-2"]
    there, here = collect(study(), elsewhere), collect(study(), places)
    assert there.missing == here.missing
    for seed in (1, 2):
        one, two = (found.done["main"][seed] for found in (here, there))
        assert one.result == two.result
        assert one.confusions.keys() == two.confusions.keys()
        assert all((two.confusions[key] == c).all() for key, c in one.confusions.items())


def test_no_label_of_an_utterance_is_kept(places: Places, tmp_path: Path) -> None:
    publish(study(), places, tmp_path / "kept")
    files = sorted(p.name for p in (tmp_path / "kept" / "main-1").iterdir())
    assert files == ["counts.parquet", "result.json"]


def test_what_is_finished_stays(places: Places, tmp_path: Path) -> None:
    publish(study(), places, tmp_path / "kept")
    mark = places.row(study().row("main"), 1).counts
    mark.write_bytes(b"as it was")
    assert restore(study(), places, tmp_path / "kept") == []
    assert mark.read_bytes() == b"as it was"


def test_other_settings_are_neither_taken_nor_kept(places: Places, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    publish(study(), places, kept)
    changed = study(spec={**DOCUMENT["spec"], "selfPlay": {"groupSize": 4}})
    assert restore(changed, Places(tmp_path / "elsewhere"), kept) == []
    assert publish(changed, places, kept) == []
    assert not any(kept.iterdir())
