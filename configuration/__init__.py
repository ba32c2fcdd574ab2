"""The room of config.py: flags as a tree, checks, files, error sentences, the command line.

Only model_rules.py, rules.py and migrations.py name flags. Nothing here imports torch.
"""
