"""Vectors that `embed` wrote and a query: the nearest of them. No server, no asyncio; exact unless asked otherwise.

readers open an index -> exact finds -> a line, JSON, or a sheet of thumbnails.
"""
