"""Many callers, few cores: slots, turns, batches, and engines that are watched. asyncio; knows nothing of HTTP."""
