"""The objectives, one file each; objective.py has the menu."""
