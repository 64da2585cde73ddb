"""The simulator: the real engine, intake and journal under virtual time, from one seed.

Real are `gateway.engine`, `gateway.intake`, `gateway.routing`, `gateway.journal.sqlite` and `gateway.queries`.
Simulated are the clock, the disk's faults, the links, the participants and the callers. `draw` draws a run from a seed,
`world` plays it, `witness` keeps an independent account of what callers and participants saw, `shrink` finds the
shortest run that still fails. May import the gateway; nothing of the gateway imports it.
"""
