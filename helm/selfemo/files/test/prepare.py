"""Creates the input of the chart's test in the storage: a model and dialogues.

The script runs in the jobs image. The model is the project's test model with one million
parameters. It is untrained, but it is loaded, used and trained like a large model.
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

#: Utterances by their emotion.
LINES = {
    "joy": ("We won the cup!", "She said yes!", "I got the job!", "The baby is here!"),
    "anger": ("You lied to me.", "Who broke it?", "Give it back.", "Not again!"),
    "sadness": ("The dog died.", "I miss her.", "We lost the house.", "He never wrote."),
    "neutral": ("It is on the table.", "The bus is at ten.", "Two, please.", "That is my coat."),
}


def dialogues() -> str:
    """Return sixteen dialogues of four turns each, as JSON lines."""
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
    """Train the model to answer with label names. Otherwise no candidate could be trained on."""
    command = [sys.executable, "-m", "selfemo_jobs.base_models", "warm-start"]
    options = {
        "--model": model,
        "--to": output,
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
    """Create the model and the dialogues, and upload them."""
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
    print(f"the model and the dialogues of the test are in {folder}")


if __name__ == "__main__":
    main()
