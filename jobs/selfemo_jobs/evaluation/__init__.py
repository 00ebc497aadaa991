"""Figures of stored answers: F1 by one label or by sets of labels, with intervals. Pure."""
