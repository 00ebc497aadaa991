"""The fixed names and addresses of the local cluster. A machine has at most one with a node."""

from __future__ import annotations

NODE = "selfemo-node"
BRIDGE = "selfemo0"
CGROUP = "selfemo-test"
HOST = "10.77.0.1"  # the address of the bridge: the node, the API server, DNS and S3 listen on it
PODS = "10.77.0.0/16"
POD_FIRST = "10.77.0.10"
SERVICES = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
DOMAIN = "cluster.local"
LOOPBACK = "127.0.0.1"
BUCKET = "selfemo"
PAUSE_IMAGE = "localhost/selfemo-pause:v1"
BASE_IMAGE = "localhost/selfemo-jobs-base:e2e"
