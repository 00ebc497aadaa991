"""The label sets of the published datasets, and how labels are compared."""

from __future__ import annotations

import unicodedata

#: MELD (Poria et al. 2019): Ekman's six emotions and neutral, in the order of its paper.
MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
#: EmoryNLP (Zahiri and Choi 2018), in lower case.
EMORYNLP = ("joyful", "mad", "peaceful", "neutral", "sad", "powerful", "scared")
#: IEMOCAP, the six labels that InstructERC and BiosERC use.
IEMOCAP = ("happy", "sad", "neutral", "angry", "excited", "frustrated")


def label_key(label: str) -> str:
    r"""Return the form in which labels are compared: composed, case-folded and stripped.

    Parameters
    ----------
    label
        A label of the label set, of a file or of an answer, in any script.

    Examples
    --------
    >>> label_key(" Neutral ") == label_key("neutral")
    True
    >>> label_key("Cole\u0300re") == label_key("colère")
    True
    """
    composed = unicodedata.normalize("NFC", label)
    return unicodedata.normalize("NFC", composed.casefold()).strip()
