"""Leave out the tests of the example plugin: they run where it is installed."""

collect_ignore = ["example_plugin"]
