"""Corpora by name or path, encoded into token files, and the layout of tokens in rows."""
