"""A ping's document: its JSON text, and how it is put together again from a row."""
