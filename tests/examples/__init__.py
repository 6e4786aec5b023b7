"""The programs of examples/, each run as its reader runs it."""
