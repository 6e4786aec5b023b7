"""The command line, `metacache …`: one table of commands, functions that run them, and renderers of what they print."""
