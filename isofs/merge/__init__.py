"""Merging: plan (pure), then apply (killed anywhere, the next start finishes it)."""
