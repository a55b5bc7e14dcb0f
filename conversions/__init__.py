"""Offline converter: a Hugging Face CLIP checkpoint in, a verified model folder out. clipsrv never imports it."""
