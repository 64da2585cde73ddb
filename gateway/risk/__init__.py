"""Risk: which payments are admitted. Daily limits, velocity, blocklists, scores.

A file of rules (`rule_file`, `default.toml`) becomes values (`rules`). `Judge` applies them to each payment on the
engine's thread; what must be exact becomes a condition of the journal's commit. `book` reloads the file, `server`
serves hutong.gateway.v1.RiskService. Imports the engine's values and tokenization.interface; only the gateway's own
intake, queries and server import this package.
"""
