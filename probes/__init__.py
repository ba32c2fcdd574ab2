"""Synthetic tasks that need one ability each: recall, copying, state tracking, knowledge in several steps.

A task draws rows of symbols and says at which places an answer is asked for. menu.py lists the tasks; the other files
have a function for each, which draws many rows at once.
"""

from probes.menu import PROBES, SOURCES
from probes.task import IGNORED, Numbers, Rows, Task

__all__ = ["IGNORED", "PROBES", "SOURCES", "Numbers", "Rows", "Task"]
