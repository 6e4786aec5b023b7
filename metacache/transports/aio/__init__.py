"""One connection for the tasks of an event loop."""
