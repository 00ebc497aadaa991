"""The variables that several dashboards have, and the links that use them."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

from tools.dashboards.board_types import Link, SourceVariable, TextVariable, Variable

#: The matcher of the chosen cluster. Without a label `cluster` all series match.
CLUSTER = 'cluster=~"$cluster"'
LOGS_SOURCE = SourceVariable(
    "loki_datasource",
    "Loki data source",
    "loki",
    "The data source for the links to logs. Without Loki, these links do not work.",
)
GPU_PRICE = TextVariable(
    "gpu_hour_price",
    "Price of a GPU hour",
    "The price of one GPU hour in any currency. If 0, no costs are shown.",
    "0",
)
#: The price as a vector, so that there is no cost without a price.
GPU_HOUR = "(vector($gpu_hour_price) > 0)"
NO_PRICE = "enter a price"
STORAGE_SITE = TextVariable(
    "storage_site",
    "Storage site",
    "The base URL of a web page that shows the storage, for example "
    "https://minio.example.com/browser/. Bucket and path are appended. Without it, the links to "
    "the report and the storage do not work.",
)


def cluster_variable(metric: str) -> Variable:
    """Return the variable of the cluster.

    Parameters
    ----------
    metric
        A metric that every cluster of the dashboard has.
    """
    return Variable("cluster", "Cluster", f"label_values({metric}, cluster)", optional=True)


def logs_link(title: str, selector: str) -> Link:
    """Return a link to logs in Explore, over the time range of the dashboard.

    Parameters
    ----------
    title
        The title of the link.
    selector
        The LogQL selector, with dashboard variables. Its labels are those that the usual agents
        set: ``namespace``, ``pod`` and ``container``.
    """
    uid = "${loki_datasource}"
    query = {
        "refId": "A",
        "datasource": {"type": "loki", "uid": uid},
        "expr": selector,
        "queryType": "range",
    }
    pane = {
        "datasource": uid,
        "queries": [query],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    panes = quote(json.dumps({"logs": pane}, separators=(",", ":")), safe="$")
    panes = re.sub(r"\$%7B(\w+)%7D", r"${\1}", panes)  # Grafana finds no variable in `$%7B`
    return Link(title, f"/explore?schemaVersion=1&orgId=${{__org.id}}&panes={panes}", new_tab=True)
