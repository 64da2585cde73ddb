"""Simulated issuers and acquirers: books that last, answers that follow the contract, faults on request.

`ledger` decides what a leg does, `books` keeps it on disk, `script` and `magic` say how to misbehave, `simulated`
joins them into a function from frames to frames, and `process` runs that behind a gRPC stream. Imports `hutong.*`
(generated) and `contract` only.
"""
