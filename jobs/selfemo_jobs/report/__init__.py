"""The report of a run: it reads the manifests and writes one self-contained HTML page."""
