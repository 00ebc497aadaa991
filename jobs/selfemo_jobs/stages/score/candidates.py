"""Candidates in groups: which rows of a part belong together, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from selfemo_api.spec import Role
from selfemo_jobs.errors import BadInput
from selfemo_jobs.rewards.label_sets import Masks, encode_label_sets

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Groups:
    """Row numbers of whole groups, in the order in which the groups first appear."""

    recognizer: Rows
    """Shape (N, G), members in order."""
    responder: Rows
    """Shape (M, G)."""


def groups_of(table: pa.Table, size: int, where: str) -> Groups:
    """Return a part's groups.

    Parameters
    ----------
    table
        Candidates (:data:`selfemo_jobs.runtime.schemas.CANDIDATES`).
    size
        Members of a group, G.
    where
        The part's URI, for messages.

    Raises
    ------
    BadInput
        If a group is not whole, or mixes roles: its rewards cannot be compared.
    """
    rows: dict[str, list[int]] = {}
    for row, group in enumerate(table["group_id"].to_pylist()):
        rows.setdefault(group, []).append(row)
    members, roles = table["member"].to_pylist(), table["role"].to_pylist()
    found: dict[str, list[list[int]]] = {role.value: [] for role in Role}
    for group, its in rows.items():
        its.sort(key=lambda row: members[row])
        if [members[row] for row in its] != list(range(size)):
            raise BadInput(
                f"{where}: group {group} has members {[members[r] for r in its]}, not 0 to "
                f"{size - 1} (`selfPlay.groupSize`): delete that stage's folder to run it again"
            )
        role = roles[its[0]]
        if role not in found or any(roles[row] != role for row in its):
            raise BadInput(f"{where}: group {group}: `role` must be one of Recognizer or Responder")
        found[role].append(its)

    def array(groups: list[list[int]]) -> Rows:
        return np.array(groups, np.int64).reshape(-1, size)

    return Groups(array(found[Role.RECOGNIZER]), array(found[Role.RESPONDER]))


def label_masks(
    table: pa.Table, column: str, rows: Rows, labels: Sequence[str], where: str
) -> Masks:
    """Return the label sets of a column at some rows, as masks of the rows' shape; null is empty.

    Raises
    ------
    BadInput
        If a label is not in the label set.
    """
    sets = table[column].take(pa.array(rows.ravel())).to_pylist()
    try:
        return encode_label_sets(sets, labels).reshape(rows.shape)
    except KeyError as error:
        name = error.args[0]
        row = next(r for r, s in zip(rows.ravel(), sets, strict=True) if s and name in s)
        raise BadInput(
            f"{where}: row {row + 1}: `{column}` names {name}, which is not in `dataset.labels`"
        ) from None
