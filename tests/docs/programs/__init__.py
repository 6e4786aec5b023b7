"""Programs that pages include, because they fork or catch signals. The tests run each in a process of its own."""
