"""What each method of a client sends and how it reads the replies: requests, batches, recipes. No I/O."""
