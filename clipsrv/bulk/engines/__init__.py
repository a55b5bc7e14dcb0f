"""Who computes the shards of a job: this process, or a cluster. Whoever it is, the same comes out."""
