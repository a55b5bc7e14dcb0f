"""What a file says of its first image, read by walking over it before any decoder sees it. Decodes nothing."""
