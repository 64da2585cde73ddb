"""`hutong torture`: real processes under load, killed at random moments, and an independent record of every answer.

`disk` makes a small disk that can be filled, `processes` runs gateways, participants and PostgreSQL, `scene` starts
them all, `load` is the process that pays and `record` what it remembers, `faults` the table of what is done to them,
`recovery` measures how long they need, `verify` holds the record against the journal and the books, `run` conducts,
`command` is the command. May import everything, as all of command.
"""
