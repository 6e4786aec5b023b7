"""What metacache costs, beside other clients, on this machine: `python -m benchmarks [section…]`.

Prints figures; asserts nothing.
"""
