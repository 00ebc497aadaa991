"""The learning study: rows that each change one thing, run with several seeds, measured alike.

``python -m selfemo_study run studies/meld.yaml`` runs the missing rows, and ``results`` writes the
page. See docs/studies/README.md.
"""
