"""What Forge answers to requests, and what runs in its Python: the page is not opened."""
