"""Programs that try to break a server, and count what came of it."""
