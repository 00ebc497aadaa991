"""Which labels self-play may read: those of the labeled subset, and no others. Pure."""

from __future__ import annotations

from selfemo_api.spec import EvolutionSpec, Source
from selfemo_study.study_config import StudyError


def check_label_separation(spec: EvolutionSpec, labeled: Source, count: int) -> None:
    """Check that self-play reads the labels of the labeled subset, and no others.

    A source with `use: Labeled` must lie within the labeled subset. Every other source must not
    contain a dialogue of it.

    Parameters
    ----------
    spec
        The evolution's spec.
    labeled
        The source of the warm start.
    count
        The number of its dialogues in the labeled subset, from the first.

    Raises
    ------
    StudyError
        If a self-play source breaks one of the two rules.
    """
    first = labeled.offset
    end = first + count
    for source in spec.dataset.self_play:
        source_end = source.offset + (source.limit or 10**9)
        same_file = source.uri == labeled.uri
        if source.use_labels:
            if not same_file or source.offset < first or source_end > end:
                raise StudyError(
                    f"self-play source `{source.name}` reads labels that the warm start does not "
                    f"read: it must begin at dialogue {first} or later and end within the first "
                    f"{end} dialogues of {labeled.uri}"
                )
        elif same_file and source.offset < end and source_end > first:
            raise StudyError(
                f"self-play source `{source.name}` begins at dialogue {source.offset}, but "
                f"the warm start reads the labels of the first {end}: set its `offset` to "
                f"{end}, or set `use: Labeled`"
            )
