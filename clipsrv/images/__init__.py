"""Encoded bytes to `pixel_values`: what may be opened, at what cost, and the reference's pixels to the bit."""
