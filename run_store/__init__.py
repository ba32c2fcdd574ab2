"""Saved runs as folders: what they hold, and `python runs.py list|show|rm|prune`, which needs no torch."""
