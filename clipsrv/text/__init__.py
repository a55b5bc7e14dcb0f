"""Text to token ids, one file for each kind of tokenizer."""
