"""The groups of a part: which rows belong together. Incomplete groups are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from selfemo_api.spec import Role
from selfemo_jobs.errors import BadRows
from selfemo_jobs.rewards.label_sets import Masks, encode_label_sets

#: Row numbers of a table.
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CandidateGroups:
    """Row numbers of the groups of a part, in the order in which the groups first occur."""

    recognizer: Rows
    """Shape (N, G): the rows of each recognizer group, ordered by member."""
    responder: Rows
    """Shape (M, G): the rows of each responder group, ordered by member."""


def find_groups(table: pa.Table, group_size: int, uri: str) -> CandidateGroups:
    """Return the groups of a part.

    Parameters
    ----------
    table
        The candidates of the part (:data:`selfemo_jobs.runtime.schemas.CANDIDATES`).
    group_size
        Number of members of each group, G.
    uri
        URI of the part, for error messages.

    Returns
    -------
    CandidateGroups
        The row numbers of the groups of both roles.

    Raises
    ------
    BadRows
        If a group is incomplete or mixes roles: its rewards cannot be compared.
    """
    rows: dict[str, list[int]] = {}
    for row, group in enumerate(table["group_id"].to_pylist()):
        rows.setdefault(group, []).append(row)
    members, roles = table["member"].to_pylist(), table["role"].to_pylist()
    groups: dict[str, list[list[int]]] = {role.value: [] for role in Role}
    for group, group_rows in rows.items():
        group_rows.sort(key=lambda row: members[row])
        numbers = [members[row] for row in group_rows]
        if numbers != list(range(group_size)):
            raise BadRows(
                f"{uri}: group {group} has members {numbers}, not 0 to {group_size - 1} "
                "(`selfPlay.groupSize`)"
            )
        role = roles[group_rows[0]]
        if role not in groups or any(roles[row] != role for row in group_rows):
            raise BadRows(f"{uri}: group {group}: `role` must be one of Recognizer or Responder")
        groups[role].append(group_rows)

    def to_array(role: Role) -> Rows:
        return np.array(groups[role], np.int64).reshape(-1, group_size)

    return CandidateGroups(to_array(Role.RECOGNIZER), to_array(Role.RESPONDER))


def label_masks(table: pa.Table, column: str, rows: Rows, labels: Sequence[str], uri: str) -> Masks:
    """Return the label sets of a column at some rows as bit masks.

    Parameters
    ----------
    table
        The candidates of a part.
    column
        Name of a column with lists of labels. Null stands for the empty set.
    rows
        Row numbers, an array of any shape.
    labels
        The label set.
    uri
        URI of the part, for error messages.

    Returns
    -------
    Masks
        One mask for each row number, of the same shape as ``rows``.

    Raises
    ------
    BadRows
        If a label is not in the label set.
    """
    sets = table[column].take(pa.array(rows.ravel())).to_pylist()
    try:
        return encode_label_sets(sets, labels).reshape(rows.shape)
    except KeyError as error:
        name = error.args[0]
        row = next(r for r, s in zip(rows.ravel(), sets, strict=True) if s and name in s)
        raise BadRows(
            f"{uri}: row {row + 1}: `{column}` names {name}, which is not in `dataset.labels`"
        ) from None
