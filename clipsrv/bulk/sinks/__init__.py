"""Where the shards of a job in shards go: every sink takes a shard again without harm."""
