"""The store: rows in SQLite and content in flat folders. The only package that knows SQL."""
