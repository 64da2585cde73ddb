"""A conformance suite for participants: whether somebody's own issuer or acquirer does what participant.proto says.

`peer` plays the gateway's side of the stream, `session` sends legs and judges answers, `issuer_checks`,
`acquirer_checks` and `common_checks` are what is checked, and `run` runs all of it and gives a report.
"""
