"""What is true of one family of models and not of the others, a file each."""
