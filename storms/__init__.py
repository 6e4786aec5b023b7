"""Storms: random faults under load, for as long as wanted: `python -m storms [storm…] --minutes 20` or `make storm`.

Threads and tasks read and write canary values while nodes die, freeze and leave, calls are cancelled or interrupted by
signals, and processes fork. The tests run each storm for seconds.
"""
