"""Ways to carry out many runs: on this machine's processes, or on a Ray cluster.

`schedule.execute` decides what is run, again, or not at all; a pool (`local`, `ray`) only starts
runs and tells what became of them. So every pool has the same behaviour under faults.
"""
