"""What commands are given: each option is written once, in the module named for what it speaks of."""
