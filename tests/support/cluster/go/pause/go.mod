// The container that holds a pod's network namespace.
module selfemo.dev/tests/cluster/pause

go 1.24.0
