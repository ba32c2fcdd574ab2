"""The room of train.py: setup, step, evaluation, checkpoints, reports, trackers, signals."""
