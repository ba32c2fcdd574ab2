"""What a model can learn, one file per objective; objective.py has the menu."""
