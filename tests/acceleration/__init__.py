"""The compiled primitives: the seam, their twins in Python, signals, and memory."""
