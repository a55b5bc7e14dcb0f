"""The offline job: files in, vectors out, without a server. Any kill loses at most the shard in work.

source -> prepare -> job -> a store (files or PostgreSQL). Only sources know HTTP and stores.
"""
