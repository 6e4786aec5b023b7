"""Connections: a blocking one, one for asyncio, and the code that both share."""
