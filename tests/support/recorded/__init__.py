"""A real run, as it was left on disk: five generations of the demo on a CPU.

It has the recipe `paper-v1` with `selfPlay.dialogues=24`, `stopping.maxGenerations=5`,
`stopping.patience=5`, `stopping.goal=0.42`, `training.optimizer.learningRate=2.0e-5` and
`flywheel.minReward=0.1`, among others (`written` in the state). Kept are the manifests, the times,
the last scored table, the status and one stage's log; models and other tables are not. The place
of the storage in the status was renamed. When the names of settings changed, those in the state
and in the manifests, and the hashes of the manifests, were changed with them. The stage Check did
not exist at the time of the run: it was run later, on the same dialogues and on a model of the same
shape, and stands before the other stages.
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
    stored = EmotionEvolution.model_validate_json((STATE / "evolution.json").read_bytes())
    storage = stored.spec.storage.model_copy(update={"uri": STORAGE.as_uri()})
    return stored.model_copy(update={"spec": stored.spec.model_copy(update={"storage": storage})})
