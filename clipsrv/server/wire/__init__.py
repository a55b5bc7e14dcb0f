"""Bodies to items and vectors to bodies, and the errors of the envelope."""
