"""How the verbs of a client run on its transport: operations, recipes, and what becomes of an error of theirs."""
