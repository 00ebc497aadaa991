"""The label sets of the published datasets."""

from __future__ import annotations

#: MELD (Poria et al. 2019): Ekman's six emotions and neutral, in the order of its paper.
MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
#: EmoryNLP (Zahiri and Choi 2018), in lower case.
EMORYNLP = ("joyful", "mad", "peaceful", "neutral", "sad", "powerful", "scared")
#: IEMOCAP, the six labels that InstructERC and BiosERC use.
IEMOCAP = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
