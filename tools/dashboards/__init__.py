"""Grafana dashboards as code: ``python -m tools.dashboards`` writes their files in the chart."""
