"""Fuzzing of everything that reads bytes of others: `python -m fuzzing [target…] [--minutes 20]` or `make fuzz`.

`targets` lists the targets. Each takes bytes and raises AssertionError for a fault. atheris runs them for minutes and
follows their coverage; the tests run them for seconds, with hypothesis.
"""
