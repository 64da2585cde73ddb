"""The `hutong` command: one module for each group of commands, and the composition of a whole network."""
