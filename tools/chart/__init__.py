"""The generated files of the Helm chart: ``python -m tools.chart`` writes them."""
