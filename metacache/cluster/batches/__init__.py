"""A batch over many nodes. Knows members and exchanges; knows no routing."""
