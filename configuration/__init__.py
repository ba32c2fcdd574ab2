"""Behind config.py: flags as a tree, checks, files, sentences on mistakes, the command line. Knows no flag by name
but in rules.py and migrations.py, and takes no torch."""
