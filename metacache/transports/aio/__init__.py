"""One connection for the tasks of an event loop: dial, write requests, match replies, and enforce deadlines."""
