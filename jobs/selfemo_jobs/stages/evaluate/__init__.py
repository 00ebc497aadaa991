"""Evaluate: how well a generation recognises emotions."""
