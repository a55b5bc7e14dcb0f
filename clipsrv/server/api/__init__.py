"""What each endpoint does, one file a protocol."""
