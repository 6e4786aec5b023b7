"""The clients: `Client` (blocking), `AsyncClient` (asyncio), and what both are made of."""
