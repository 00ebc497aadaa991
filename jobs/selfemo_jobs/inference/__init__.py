"""Uses a trained model: recognizes the emotions of dialogues, and replies with an emotion."""

from __future__ import annotations

from selfemo_jobs.inference.loaded_model import LoadedModel
from selfemo_jobs.inference.recognizer import Prediction, Recognizer
from selfemo_jobs.inference.responder import Reply, Responder
from selfemo_jobs.inference.targets import Target

__all__ = ["LoadedModel", "Prediction", "Recognizer", "Reply", "Responder", "Target"]
