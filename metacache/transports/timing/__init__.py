"""Moments under an event loop: a timer for the earliest deadline, and a limit for a block of code."""
