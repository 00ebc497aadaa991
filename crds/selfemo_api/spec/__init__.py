"""``spec`` of an EmotionEvolution: the desired evolution.

Hyperparameters are JSON numbers with bounds. This deviates from the Kubernetes convention "no
floats" on purpose: every program that reads them is written in Python. The docstring of a field is
its description in the CRD. It ends with the reason for the default, where there is one.
"""

from selfemo_api.spec.dataset import Context, DataFormat, DatasetSpec, Source
from selfemo_api.spec.evaluation import EvaluationSpec
from selfemo_api.spec.evolution_spec import EvolutionSpec
from selfemo_api.spec.fields import Emotion, StorageUri, Uri
from selfemo_api.spec.flywheel import Band, Deduplicate, FlywheelRunner, FlywheelSpec
from selfemo_api.spec.kubernetes import Deadlines, FailurePolicy, PodTemplate, PodTemplates, Queue
from selfemo_api.spec.model import ModelSpec, ResumeFrom
from selfemo_api.spec.reward import (
    GroupWeight,
    JudgeModel,
    JudgeSpec,
    RewardSpec,
    RewardWeights,
    Signal,
    View,
)
from selfemo_api.spec.self_play import Engine, EngineArgs, MaxTokens, Role, SelfPlaySpec
from selfemo_api.spec.stopping import CollapseBounds, EvolutionPolicy, Goal, OnRegression
from selfemo_api.spec.storage import SecretReference, StorageSpec, WhenDeleted
from selfemo_api.spec.training import (
    Clip,
    DeepSpeedSpec,
    Lora,
    Offload,
    Precision,
    Schedule,
    Start,
    TrainingSpec,
)

__all__ = [
    "Band",
    "Clip",
    "CollapseBounds",
    "Context",
    "DataFormat",
    "DatasetSpec",
    "Deadlines",
    "Deduplicate",
    "DeepSpeedSpec",
    "Emotion",
    "Engine",
    "EngineArgs",
    "EvaluationSpec",
    "EvolutionPolicy",
    "EvolutionSpec",
    "FailurePolicy",
    "FlywheelRunner",
    "FlywheelSpec",
    "Goal",
    "GroupWeight",
    "JudgeModel",
    "JudgeSpec",
    "Lora",
    "MaxTokens",
    "ModelSpec",
    "Offload",
    "OnRegression",
    "PodTemplate",
    "PodTemplates",
    "Precision",
    "Queue",
    "ResumeFrom",
    "RewardSpec",
    "RewardWeights",
    "Role",
    "Schedule",
    "SecretReference",
    "SelfPlaySpec",
    "Signal",
    "Source",
    "Start",
    "StorageSpec",
    "StorageUri",
    "TrainingSpec",
    "Uri",
    "View",
    "WhenDeleted",
]
