"""The memory of a training run: predicted, limited, measured. memory.py is its door."""
