"""A real run, as it was left on disk: five generations of the demo on a CPU.

`examples/demo.yaml` with `selfPlay.dialogues=24`, `evolution.maxGenerations=5`,
`evolution.patience=5`, `evolution.goal={f1: 0.42}`, `training.learningRate=2.0e-5` and
`flywheel.minReward=0.1`. Kept are the manifests, the times, the last scored table, the status and
one stage's log; models and other tables are not. The storage's place in the status was renamed;
nothing else was changed.
"""

from __future__ import annotations

from pathlib import Path

from selfemo_api.evolution import EmotionEvolution

FOLDER = Path(__file__).parent
STORAGE = FOLDER / "storage"
STATE = FOLDER / "state"
RUN = "default/demo-02c8c86b"


def evolution() -> EmotionEvolution:
    """Return the evolution with its last status, its storage being the one kept here."""
    found = EmotionEvolution.model_validate_json((STATE / "evolution.json").read_bytes())
    storage = found.spec.storage.model_copy(update={"uri": STORAGE.as_uri()})
    return found.model_copy(update={"spec": found.spec.model_copy(update={"storage": storage})})
