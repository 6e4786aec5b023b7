"""A batch on one shared connection. Knows windows and the futures of their replies; moves no byte."""
