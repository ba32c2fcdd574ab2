"""Models of other people in their own form: import a folder as a run, export a run as a folder."""
