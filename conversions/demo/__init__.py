"""Trains the small CLIP that comes with the project, from freely licensed emoji drawings and their names."""
