"""The settings that affect scores: scores of generations are comparable only if they are equal."""

from __future__ import annotations

import json
from typing import Any

from selfemo_api.recipes import written_path
from selfemo_api.spec import EvolutionSpec
from selfemo_api.text.formatting import shortened

#: Engine arguments that place or speed up the work. Except for rounding, they do not affect scores.
#: They must remain editable: such an edit helps if a GPU runs out of memory.
PLACEMENT_ARGUMENTS = frozenset(
    {
        "batch_size",
        "block_size",
        "cpu_offload_gb",
        "data_parallel_size",
        "device",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "enable_chunked_prefill",
        "enable_prefix_caching",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_memory_bytes",
        "max_num_batched_tokens",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "num_gpu_blocks_override",
        "pipeline_parallel_size",
        "swap_space",
        "tensor_parallel_size",
    }
)
#: The maximum length of a value in a message, in characters.
_VALUE_MAX = 80


def with_label_prior(spec: EvolutionSpec, counted: dict[str, float] | None) -> EvolutionSpec:
    """Return a spec with the label frequencies of the labeled sources if it has no label prior.

    Parameters
    ----------
    spec
        The spec.
    counted
        The frequencies that the Check stage has counted, ``status.labelPrior``, or None.
    """
    if spec.dataset.label_prior is not None or counted is None:
        return spec
    dataset = spec.dataset.model_copy(update={"label_prior": counted})
    return spec.model_copy(update={"dataset": dataset})


def comparison_settings(spec: EvolutionSpec) -> dict[str, Any]:
    """Return the settings that affect the score on the selection dataset, by dotted path.

    Parameters
    ----------
    spec
        A resolved spec, with the label prior of the run if it uses one.

    Returns
    -------
    dict
        The JSON value of each setting, None if it is unset.
    """
    content = spec.to_json()
    selection = spec.selection_dataset
    source = next(s for s in content["dataset"]["sources"] if s["name"] == selection)
    settings = {f"dataset.{n}": content["dataset"].get(n) for n in ("labels", "columns")}
    settings |= {f"dataset.{n}": content["dataset"].get(n) for n in ("labelMap", "context")}
    for name in ("uri", "format", "offset", "limit"):
        settings[f"dataset.sources[{selection}].{name}"] = source.get(name)
    for name in ("prompts", "promptTemplates", "maxPromptTokens", "revision"):
        settings[f"model.{name}"] = content["model"].get(name)
    settings["selfPlay.maxTokens.recognizer"] = spec.self_play.max_tokens.recognizer
    settings["evaluation.engine"] = spec.evaluation_engine.value
    settings["selfPlay.engineArgs"] = {
        name: value
        for name, value in spec.evaluation_engine_args.items()
        if name not in PLACEMENT_ARGUMENTS
    }
    settings["evaluation.selectionDataset"] = selection
    settings["evaluation.multiLabel"] = spec.evaluation.multi_label.value
    settings["evaluation.useLabelPrior"] = spec.evaluation.use_label_prior
    settings["dataset.labelPrior"] = spec.evaluation_label_prior
    return settings


def comparison_error(measured: EvolutionSpec, spec: EvolutionSpec) -> str:
    """Return why scores of two specs cannot be compared, or an empty text.

    Parameters
    ----------
    measured
        The resolved spec with which the best model was measured.
    spec
        The resolved spec of the next generation.
    """
    before, after = comparison_settings(measured), comparison_settings(spec)
    changes = [
        f"`{written_path(path)}` is {_text(after.get(path))} and was {_text(before.get(path))}"
        for path in {**before, **after}
        if before.get(path) != after.get(path)
    ]
    if not changes:
        return ""
    return (
        f"{'; '.join(changes)}: scores must remain comparable, and the best model was measured "
        "with the previous value. Restore it, or start another evolution; to continue from a model "
        "of this one, set `model.resumeFrom`"
    )


def changed_dataset(source: str, measured: str | None, now: str | None) -> str | None:
    """Return why a score on the selection dataset cannot be compared, or None if it can.

    Parameters
    ----------
    source
        The name of the selection dataset, or its URI.
    measured
        The SHA-256 of its files when the baseline was evaluated, or None if it is unknown.
    now
        The SHA-256 of its files now.

    Examples
    --------
    >>> changed_dataset("dev", "a" * 64, "a" * 64)
    >>> changed_dataset("dev", "a" * 64, "b" * 64)[:68]
    'dev has changed since the baseline was measured (SHA-256 aaaaaaaaaaa'
    """
    if measured is None or now is None or measured == now:
        return None
    return (
        f"{source} has changed since the baseline was measured (SHA-256 {measured[:12]}… then, "
        f"{now[:12]}… now): scores on it cannot be compared. Restore the files and edit the spec "
        "to continue, or start another evolution"
    )


def _text(value: Any) -> str:
    if value is None:
        return "unset"
    return shortened(json.dumps(value, ensure_ascii=False), _VALUE_MAX)
