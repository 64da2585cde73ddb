"""The `hutong` command: a module or folder for each group; `options` has their options, `printing` their output.

Arguments and printing, nothing else: what a command does is in the package that it belongs to.
"""
