"""Ways to carry out many runs: here, on this machine's processes; on a cluster."""
