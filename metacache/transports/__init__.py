"""What moves requests and replies: one connection of each kind, and what both kinds share."""
