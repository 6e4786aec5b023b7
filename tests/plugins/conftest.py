"""The example plugin has tests of its own, which run where it is installed."""

collect_ignore = ["example_plugin"]
