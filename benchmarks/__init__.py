"""Measurements beside rivals, each taken by one command. Nothing in clipsrv imports this."""
