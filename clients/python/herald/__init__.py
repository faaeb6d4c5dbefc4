"""A client of Herald: `herald.client` and `herald.tail`, and `herald.aio` for asyncio."""
