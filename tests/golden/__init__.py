"""What the references make of images and texts, and the scripts that ask them."""
