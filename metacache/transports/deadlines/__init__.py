"""Deadlines of the requests on one connection."""
