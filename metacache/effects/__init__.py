"""How the verbs of a client run on its transport: operations and recipes, and how their errors are handled."""
