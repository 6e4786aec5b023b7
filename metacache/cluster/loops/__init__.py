"""A cluster for each event loop, behind one transport."""
