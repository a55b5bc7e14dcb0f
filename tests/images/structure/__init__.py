"""What each format says of its first image, and what it may not say."""
