"""Measure the cost of metacache and of other clients on this machine: `python -m benchmarks [section…]`.

The sections print figures, and no figure fails a run. `python -m benchmarks.check` fails if an instruction count rose.
"""
