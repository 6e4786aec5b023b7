"""Builds the requests of each client method and reads their replies: requests, batches, recipes. No I/O."""
