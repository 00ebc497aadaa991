"""Grafana dashboards as code: ``python -m tools.dashboards`` writes the chart's files."""
