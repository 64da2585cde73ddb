"""The options of commands: each is written once, in the module named for its subject."""
