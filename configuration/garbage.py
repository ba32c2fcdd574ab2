"""When Python looks for garbage: not while a program imports its packages.

Imports make some 400,000 objects that stay. Looking through them again and again, for cycles that nothing refers to,
takes a quarter of the time of importing torch and all that trains; what is found are 10 MB.
"""

import gc


def wait() -> None:
    """Look for no garbage until `begin`; for a program's first lines."""
    gc.disable()


def begin() -> None:
    """After `wait`, look for garbage again, but never among what is there by now; for when all is imported."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
