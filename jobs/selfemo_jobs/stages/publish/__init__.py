"""The publish stage: what a finished generation leaves for people and other programs."""
