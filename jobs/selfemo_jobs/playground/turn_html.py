"""The recognized turns and the replies as HTML. All texts are untrusted and are escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

#: The number of the most probable labels that a turn shows.
SHOWN_LABELS = 3
#: The hue of each label in degrees, by its position in the label set. Neighbors are far apart.
_GOLDEN_ANGLE = 137.508
#: Labels without a color.
_GRAY = ("neutral", "none", "no emotion")
#: The colors are given by hue alone, so that they suit a light and a dark page.
CSS = """
.turns { display: flex; flex-direction: column; gap: .5rem; }
.turn { border-left: .4rem solid hsl(var(--hue) var(--saturation) 50%); border-radius: .3rem;
  padding: .35rem .6rem; background: hsl(var(--hue) var(--saturation) 50% / .12);
  overflow-wrap: anywhere; }
.turn .speaker { font-weight: 600; }
.turn .labels { font-size: .85rem; margin-top: .2rem; display: flex; flex-wrap: wrap;
  gap: .3rem .8rem; }
.turn .label { white-space: nowrap; }
.turn .label.top { font-weight: 600; }
.turn .bar { display: inline-block; width: 3.5rem; height: .5rem; border-radius: .25rem;
  background: hsl(var(--hue) var(--saturation) 50% / .2); margin: 0 .3rem; overflow: hidden; }
.turn .bar i { display: block; height: 100%; background: hsl(var(--hue) var(--saturation) 50%); }
.turn.differs { outline: 2px dashed hsl(var(--hue) var(--saturation) 50%); outline-offset: -2px; }
.note { font-size: .9rem; opacity: .85; }
"""


@dataclass(frozen=True)
class ShownTurn:
    """A turn with the emotions that a model recognizes in it."""

    speaker: str
    """The speaker of the turn."""
    text: str
    """The words of the turn."""
    labels: tuple[str, ...]
    """The emotions that the model answers."""
    probabilities: Mapping[str, float]
    """The probability of each label, from 0 to 1."""


def hue_of(label: str, labels: Sequence[str]) -> float:
    """Return the hue of a label in degrees, from 0 to 360.

    Parameters
    ----------
    label
        The label.
    labels
        The label set.

    Examples
    --------
    >>> hue_of("joy", ["joy", "anger"])
    0.0
    """
    position = list(labels).index(label) if label in labels else len(labels)
    return round(position * _GOLDEN_ANGLE % 360, 1)


def turns_html(
    turns: Sequence[ShownTurn], labels: Sequence[str], others: Sequence[ShownTurn] = ()
) -> str:
    """Return recognized turns, each in the color of its first emotion.

    Parameters
    ----------
    turns
        The turns.
    labels
        The label set.
    others
        The same turns as another model reads them. A turn whose emotions differ is marked.
    """
    rows = []
    for number, turn in enumerate(turns):
        differs = number < len(others) and others[number].labels != turn.labels
        rows.append(_turn(turn, labels, differs=differs))
    return f'<div class="turns">{"".join(rows)}</div>'


def replies_html(
    speaker: str, replies: Sequence[ShownTurn], intended: str, labels: Sequence[str]
) -> str:
    """Return replies with the emotions that a model reads in them.

    Parameters
    ----------
    speaker
        The speaker of the replies.
    replies
        The replies.
    intended
        The emotion that the replies are to express.
    labels
        The label set.
    """
    hits = sum(reply.labels[:1] == (intended,) for reply in replies)
    note = (
        f'<p class="note">{hits} of {len(replies)} replies by {escape(speaker)} are classified '
        f"as {escape(intended)}.</p>"
    )
    return note + turns_html(replies, labels)


def note_html(text: str) -> str:
    """Return a note, for example about a model that is not there.

    Examples
    --------
    >>> note_html("no <model>")
    '<p class="note">no &lt;model&gt;</p>'
    """
    return f'<p class="note">{escape(text)}</p>'


def _turn(turn: ShownTurn, labels: Sequence[str], *, differs: bool) -> str:
    ranked = sorted(turn.probabilities.items(), key=lambda item: -item[1])[:SHOWN_LABELS]
    shown = "".join(_label(name, share, turn.labels) for name, share in ranked)
    first = turn.labels[0] if turn.labels else ""
    color = f"--hue: {hue_of(first, labels)}; --saturation: {0 if first in _GRAY else 65}%"
    answer = escape(", ".join(turn.labels)) or "no emotion"
    named = not turn.labels or not {*turn.labels} <= {name for name, _ in ranked}
    answered = f'<span class="label top">{answer}</span>' if named else ""
    classes = "turn differs" if differs else "turn"
    speaker = f'<span class="speaker">{escape(turn.speaker)}:</span> ' if turn.speaker else ""
    return (
        f'<div class="{classes}" style="{color}" data-label="{answer}">'
        f"<div>{speaker}<span>{escape(turn.text)}</span></div>"
        f'<div class="labels">{answered}{shown}</div></div>'
    )


def _label(name: str, share: float, answer: Sequence[str]) -> str:
    percent = round(100 * share)
    top = " top" if name in answer else ""
    return (
        f'<span class="label{top}">{escape(name)}<span class="bar"><i style="width: {percent}%">'
        f"</i></span>{share:.2f}</span>"
    )
