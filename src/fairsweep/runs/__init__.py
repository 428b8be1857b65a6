"""One run: its record, its life, its upload, and what is made of it."""
