"""A checkpoint's tokenizer to the tokenizer.json that is served, a file for each kind that needs it."""
