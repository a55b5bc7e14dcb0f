"""Where the vectors of a job go."""
