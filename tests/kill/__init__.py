"""Processes killed, or out of disk, at file operations: what they wrote is whole, or as before.

    python -m tests.kill --count 300         the long campaign, with a table of how they ended

A kill is a writer and a number: the number chooses the file operation at which the process dies.
The same command is then given again, and must end as if nothing had happened.
"""
