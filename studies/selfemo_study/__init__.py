"""The learning study: rows that each change one thing, run from seeds, measured the same way.

``python -m selfemo_study run studies/meld.yaml`` runs what is missing, ``… results …`` writes the
page. See docs/studies/README.md.
"""
