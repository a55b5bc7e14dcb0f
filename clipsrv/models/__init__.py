"""A model folder made ready to run. Inside an installed clipsrv the bundled model lies here too."""
