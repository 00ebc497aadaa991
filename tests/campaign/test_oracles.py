"""Each oracle accepts a sound recording, and finds what is wrong in a broken one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from selfemo_operator.controller.objects import names
from tests.campaign import oracles
from tests.campaign.catalog import end_state
from tests.campaign.model import Violation
from tests.campaign.oracles import Checked
from tests.campaign.recording import EvolutionRecord, ObjectRecord, Recording, Version

Json = dict[str, Any]
UID = "0123456789ab"
FOLDER = f"team/plain-0-{UID[:8]}"
Oracle = Callable[[Recording], Iterator[Violation]]


def conditions(at: str = "t0", **changes: str) -> list[Json]:
    values = {"Succeeded": "True", "Reconciling": "False", "Stalled": "False", **changes}
    return [
        {
            "type": kind,
            "status": value,
            "reason": "Finished",
            "message": "",
            "lastTransitionTime": at,
            "observedGeneration": 1,
        }
        for kind, value in values.items()
    ]


def status(generation: int = 1, **more: Any) -> Json:
    history = [{"generation": g, "outcome": "Promoted", "f1": 0.4} for g in range(generation + 1)]
    return {
        "phase": "Succeeded",
        "generation": generation,
        "history": history,
        "startTime": "t",
        "completionTime": "t",
        "observedGeneration": 1,
        "conditions": conditions(),
        **more,
    }


def version(content: Json, revision: int, spec: Json | None = None, size: int = 1000) -> Version:
    return Version(0.0, revision, 1, spec or {}, content, size)


def job(revision: int, stage: str = "check", **more: Any) -> ObjectRecord:
    labels = {
        names.LABEL_UID: UID,
        names.LABEL_EVOLUTION: "plain-0",
        names.LABEL_GENERATION: "000",
        names.LABEL_COMPONENT: stage,
    }
    record = ObjectRecord("Job", "team", f"{stage}-{revision}", f"job-{revision}", labels,
                          revision, {"spec": {"containers": []}})  # fmt: skip
    record.result, record.ended = "Complete", revision + 1
    for name, value in more.items():
        setattr(record, name, value)
    return record


def recording(*versions: Version, jobs: tuple[ObjectRecord, ...] = ()) -> Recording:
    content = versions or (version(status(0), 1), version(status(1), 2))
    record = EvolutionRecord("team", "plain-0", UID, list(content))
    return Recording({UID: record}, {j.uid: j for j in jobs or (job(1), job(10, "evaluate"))})


def deleted(spec: Json, purged: list[str]) -> Recording:
    broken = recording(version(status(), 1, spec))
    broken.evolutions[UID].deleted = 5
    broken.purged = purged
    return broken


def pod_beside() -> Recording:
    broken = recording(jobs=(job(1), job(10)))
    pod = job(2, uid="pod", owners=("job-1",), ended=20)
    broken.pods["pod"] = pod
    return broken


def late_edit() -> Recording:
    broken = recording()
    broken.evolutions[UID].versions.append(Version(0.0, 9, 2, {}, status(), 1))
    return broken


def suspended() -> Recording:
    broken = recording(version(status(), 1, {"suspend": True}))
    broken.pods["pod"] = job(3, ended=None)
    return broken


END = {"plain": end_state(status())}
ORACLES: dict[str, Oracle] = {
    "ends": lambda r: oracles.ends_as_reference(r, END, (), Checked()),
    "stages": lambda r: oracles.each_stage_once(r, Checked()),
    "pods": lambda r: oracles.no_pod_beside(r, Checked()),
    "generations": lambda r: oracles.generations_rise(r, Checked()),
    "conditions": lambda r: oracles.conditions_hold(r, Checked()),
    "settled": lambda r: oracles.settled(r, Checked()),
    "bounded": lambda r: oracles.bounded(r, {UID: 10}, Checked()),
    "restricted": lambda r: oracles.nothing_refused_runs(r, Checked()),
    "purges": lambda r: oracles.purges(r, Checked()),
    "suspended": lambda r: oracles.suspended_have_no_pods(r, ["plain-0"], Checked()),
}
DELETE = {"storage": {"whenDeleted": "Delete"}}
HOST = {"spec": {"containers": [], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}
MOVED = status(conditions=conditions("t1"))
BROKEN: list[tuple[str, Recording]] = [
    ("ends", recording(version(status(phase="Running", completionTime=None), 1))),
    ("stages", recording(jobs=(job(1), job(10)))),
    ("stages", recording(jobs=(job(1, ended=30), job(10, "evaluate")))),
    ("stages", recording(jobs=tuple(job(i, result="Failed") for i in range(1, 9, 2)))),
    ("pods", pod_beside()),
    ("generations", recording(version(status(0), 1), version(status(2), 2))),
    ("generations", recording(version(status(1), 1), version(status(0), 2))),
    ("generations", recording(version(status(0, history=[]), 1), version(status(history=[]), 2))),
    (
        "conditions",
        recording(version(status(), 1), version(status(conditions=conditions("t1")), 2)),
    ),
    ("conditions", recording(version(status(conditions=conditions(Stalled="True")), 1))),
    ("conditions", recording(version(status(conditions=conditions(Reconciling="True")), 1))),
    ("conditions", recording(version(status(conditions=conditions()[:2]), 1))),
    ("settled", late_edit()),
    ("bounded", recording(version(status(), 1, size=100_000))),
    ("restricted", recording(jobs=(job(1, template=HOST),))),
    ("purges", deleted({}, [FOLDER])),
    ("purges", deleted(DELETE, [])),
    ("suspended", suspended()),
]


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_a_sound_recording_violates_nothing(name: str) -> None:
    assert list(ORACLES[name](recording())) == []


@pytest.mark.parametrize(
    ("name", "broken"), BROKEN, ids=[f"{i}-{n}" for i, (n, _) in enumerate(BROKEN)]
)
def test_a_broken_recording_is_found(name: str, broken: Recording) -> None:
    assert list(ORACLES[name](broken))


def test_data_that_the_last_spec_gives_up_may_be_removed() -> None:
    assert list(ORACLES["purges"](deleted(DELETE, [FOLDER]))) == []


def test_a_loss_explains_another_attempt() -> None:
    repeated = recording(jobs=(job(1), job(10)))
    assert list(ORACLES["stages"](repeated))
    repeated.by_hand.append((UID, "job-deleted"))
    assert list(ORACLES["stages"](repeated)) == []
