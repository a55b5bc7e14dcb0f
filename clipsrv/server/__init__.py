"""The HTTP adapter: the only importer of aiohttp. Everything it knows of images is how to carry them."""
