"""Finding the nodes of a cluster when it is first used."""
