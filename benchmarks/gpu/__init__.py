"""scripts/prove-gpu: clipsrv on an NVIDIA card, from a packed folder to a table. Its sections are in sections.py."""
