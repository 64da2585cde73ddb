"""The outside world: a typed client, and on it simulated wallets, terminals, issuers and acquirers.

Speaks the contract only (`hutong.*`, `contract`); `command` wires everything and alone may import the rest.
"""
