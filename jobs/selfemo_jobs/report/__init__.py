"""The report of a run: its manifests in, one self-contained HTML page out."""
