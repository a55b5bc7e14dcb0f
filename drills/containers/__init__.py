"""The recipes of Dockerfile and deploy/, carried out in a real Docker engine; what they make is run."""
