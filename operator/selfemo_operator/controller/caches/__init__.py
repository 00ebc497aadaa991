"""Cached objects, and how evolutions are read within bounds."""
