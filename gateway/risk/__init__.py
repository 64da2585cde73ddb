"""Risk: which payments are let in. Limits of a day, velocity, blocklists, scores.

Rules are a file (`rule_file`, `default.toml`) that becomes values (`rules`). `Judge` holds them against each payment on
the engine's thread; what must be exact it leaves to the journal, as conditions of the commit. `book` reloads the file,
`server` serves hutong.gateway.v1.RiskService. Imports the engine's values and tokenization.interface; only the
gateway's own intake, queries and server import this package.
"""
