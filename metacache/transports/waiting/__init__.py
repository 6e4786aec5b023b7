"""Callers that wait for something another caller has. Knows order and deadlines; knows not what is waited for."""
