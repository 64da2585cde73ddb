"""The `hutong` command: a module or folder for each group, `options` that they take, `printing` of what they answer.

Arguments and printing, nothing else: what a command does stands in the package that it belongs to.
"""
