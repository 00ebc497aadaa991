"""Makes what the chart's test plays with, and puts it into the storage: a model and dialogues.

Runs in the jobs image. The model is the project's one-million-parameter test model: it knows
nothing, but it loads, plays and trains as a large one does.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from selfemo_api.spec import StorageSpec
from selfemo_jobs.base_models.tiny import make_tiny
from selfemo_jobs.store import join, open_store

#: What is said, by the emotion it is said with.
LINES = {
    "joy": ("We won the cup!", "She said yes!", "I got the job!", "The baby is here!"),
    "anger": ("You lied to me.", "Who broke it?", "Give it back.", "Not again!"),
    "sadness": ("The dog died.", "I miss her.", "We lost the house.", "He never wrote."),
    "neutral": ("It is on the table.", "The bus is at ten.", "Two, please.", "That is my coat."),
}


def dialogues() -> str:
    """Return sixteen dialogues of four turns as JSON lines."""
    emotions = list(LINES)
    rows = []
    for number in range(16):
        turns = []
        for turn in range(4):
            emotion = emotions[(number + turn) % 4]
            text = LINES[emotion][number // 4]
            turns.append({"speaker": "AB"[turn % 2], "text": text, "labels": [emotion]})
        rows.append(json.dumps({"id": f"d{number:02d}", "turns": turns}))
    return "\n".join(rows) + "\n"


def warm_start(model: Path, source: Path, output: Path) -> None:
    """Teach the model to answer with label names: one that cannot leaves nothing to train on."""
    command = [sys.executable, "-m", "selfemo_jobs.base_models", "warm-start"]
    options = {
        "--model": model,
        "--output": output,
        "--source": source,
        "--format": "JSONL",
        "--dialogues": 16,
        "--labels": ",".join(LINES),
        "--steps": 25,
        "--batch-size": 16,
        "--learning-rate": 3e-3,
    }
    arguments = [str(word) for pair in options.items() for word in pair]
    subprocess.run([*command, *arguments], check=True)


def main() -> None:
    """Make and upload."""
    folder = os.environ["TEST_FOLDER"]
    store = open_store(StorageSpec.model_validate_json(os.environ["TEST_STORAGE"]))
    with tempfile.TemporaryDirectory() as work:
        tiny, source, model = Path(work, "tiny"), Path(work, "dialogues.jsonl"), Path(work, "model")
        source.write_text(dialogues())
        make_tiny(tiny)
        warm_start(tiny, source, model)
        store.put(join(folder, source.name), source.read_bytes())
        for file in sorted(path for path in model.rglob("*") if path.is_file()):
            store.upload(file, join(folder, "model", str(file.relative_to(model))))
    print(f"the test's model and dialogues are at {folder}")


if __name__ == "__main__":
    main()
