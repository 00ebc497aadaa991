"""Dialogues to pick on the page. They are inventions."""

from __future__ import annotations

from collections.abc import Mapping

#: The text of each dialogue by its name, as a person would paste it.
EXAMPLES: Mapping[str, str] = {
    "A lost dog": "\n".join(
        [
            "Mia: Have you seen Biscuit? The gate was open when I came home.",
            "Leo: No! How long has he been gone?",
            "Mia: An hour. I looked everywhere, and it is getting dark.",
            "Leo: Wait, what is that noise behind the shed?",
            "Mia: Biscuit! You silly dog, there you are!",
            "Leo: Oh, thank goodness.",
        ]
    ),
    "The last seat": "\n".join(
        [
            "Ana: Excuse me, that is my seat.",
            "Tom: I was here first.",
            "Ana: My ticket says 14B. Look at it!",
            "Tom: Well, mine says 14B too.",
            "Ana: This cannot be happening. They sold it twice?",
            "Tom: I guess so. Shall we ask someone?",
        ]
    ),
    "Good news": "\n".join(
        [
            "Sam: The letter came today.",
            "Ruth: And? Do not make me wait.",
            "Sam: I got the scholarship.",
            "Ruth: You did? I knew it! I am so proud of you.",
            "Sam: I still cannot believe it. I will miss you, though.",
        ]
    ),
}
