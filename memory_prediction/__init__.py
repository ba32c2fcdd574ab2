"""How much memory a process holds and may hold: measured, limited, predicted."""
