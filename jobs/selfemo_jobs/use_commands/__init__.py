"""The commands that use a model: `selfemo predict`, `selfemo respond` and others."""
