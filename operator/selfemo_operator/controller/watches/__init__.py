"""The watches, by namespace."""
