"""What the training loop is made of: schedules, checkpoints, measurements, reports."""
