"""Evaluate: how well a generation recognizes emotions."""
