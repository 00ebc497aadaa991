"""The tables of a generation's expression: its responses, and how the judge reads them."""

from __future__ import annotations

import pyarrow as pa

#: One row for each response, context after context, with the emotions in the order of the label
#: set.
RESPONSES = pa.schema(
    [
        pa.field("dialogue_id", pa.string(), nullable=False),
        # index of the utterance that is answered, within its dialogue
        pa.field("utterance", pa.int32(), nullable=False),
        # who responds
        pa.field("speaker", pa.string(), nullable=False),
        # the emotion that the response is to express
        pa.field("intended", pa.string(), nullable=False),
        pa.field("response", pa.string(), nullable=False),
        # tokens of the completion, with its end
        pa.field("tokens", pa.int32(), nullable=False),
        # one complete line with a word
        pa.field("well_formed", pa.bool_(), nullable=False),
    ]
)

#: One row for each response, in the same order, and then one for each human turn.
READINGS = pa.schema(
    [
        # whether it is a human turn of the dialogue, not a response
        pa.field("human", pa.bool_(), nullable=False),
        pa.field("dialogue_id", pa.string(), nullable=False),
        # index of the utterance that is answered; for a human turn, its own index
        pa.field("utterance", pa.int32(), nullable=False),
        # the emotion that the response is to express; for a human turn, its first label
        pa.field("intended", pa.string(), nullable=False),
        # the judge's most probable emotion; null if there was nothing to read
        pa.field("read", pa.string()),
        # the probability of each label, in the order of the label set; empty with nothing to read
        pa.field("probabilities", pa.list_(pa.float64()), nullable=False),
        # whether it is read as the intended emotion, or as a label of the human turn
        pa.field("as_intended", pa.bool_(), nullable=False),
    ]
)


def responses_path(source: str) -> str:
    """Return the path of the responses below the stage's folder.

    Parameters
    ----------
    source
        The name of the source that the contexts are from.

    Examples
    --------
    >>> responses_path("dev")
    'expression/dev/responses.parquet'
    """
    return f"expression/{source}/responses.parquet"


def readings_path(source: str) -> str:
    """Return the path of the judge's readings below the stage's folder.

    Parameters
    ----------
    source
        The name of the source that the contexts are from.

    Examples
    --------
    >>> readings_path("dev")
    'expression/dev/readings.parquet'
    """
    return f"expression/{source}/readings.parquet"
