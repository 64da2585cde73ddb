"""The demonstration: every wallet pays every merchant by every key, faults are provoked, and everything is checked.

`stage` prepares wallets, terminals and cameras on a running network; `everyday` and `trouble` have the scenes; `record`
keeps each attempt's outcome and what was expected; `report` prints it.
"""
