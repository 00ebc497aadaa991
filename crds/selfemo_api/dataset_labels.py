"""The label sets of the published data sets, by format."""

from __future__ import annotations

#: MELD (Poria et al. 2019): Ekman's six and neutral, in the order of the corpus paper.
MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
#: EmoryNLP (Zahiri and Choi 2018), lower case.
EMORYNLP = ("joyful", "mad", "peaceful", "neutral", "sad", "powerful", "scared")
#: IEMOCAP, the six-way set used by InstructERC and BiosERC.
IEMOCAP = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
