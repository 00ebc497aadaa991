"""A run of `examples/demo.yaml` with its stored answers, as it was left on disk.

It has a warm start and two generations, of which the second was rolled back. Kept are the
manifests, the times, the predictions, the first part of the last scored table and the status;
models and other tables are not. The place of the storage in the status was renamed. The evaluated
dialogues, the counts of the sources and the machine were not stored at the time of the run: they
were added later, as the stages write them now.
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
