"""Whether a model may pass: limits that were asked for, set against the numbers of a report.

What a report has no number for has not passed.
"""
