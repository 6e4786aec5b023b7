"""Measure the cost of metacache and of other clients on this machine: `python -m benchmarks [section…]`.

The sections print figures. No figure fails a run.
"""
