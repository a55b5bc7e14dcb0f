"""Other people's clients against the real server, each through its public API, in environments of their own."""
