"""Saved runs seen from outside, as folders: `python runs.py list|show|rm|prune`. Without torch, so that it is quick."""
