"""WarmStart: supervised training on the labeled sources, which makes the model of generation 0."""
