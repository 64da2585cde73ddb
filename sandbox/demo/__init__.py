"""The demonstration: every wallet pays every merchant by every key, things go wrong on purpose, and all is checked.

`stage` prepares wallets, terminals and cameras on a running network, `acts` are the scenes, `record` keeps what each
attempt came to and what was expected, `report` shows it. Imports the contract and the rest of `clients` only.
"""
