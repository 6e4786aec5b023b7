"""Event loops: the one that runs here."""
