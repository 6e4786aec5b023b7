"""What each method of a client means: requests, batches, replies, and recipes of several exchanges. No I/O."""
