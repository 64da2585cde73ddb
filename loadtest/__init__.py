"""Load: generators, scenarios, baselines, reports. Speaks the contract only."""
