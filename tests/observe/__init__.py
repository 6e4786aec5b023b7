"""Observers: each event, in both clients, on each transport."""
