"""What is written down of a job that is larger than one run: its list in shards, what of it is done, who is at it."""
