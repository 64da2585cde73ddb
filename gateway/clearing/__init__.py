"""Clearing and settlement: net positions of each window, statements, and reconciliation with participants' books.

Imports the engine's values and the journal's readers; the engine and the journal do not know this package. The journal
closes a window (`gateway.journal.closing`) in a tick of the engine. Everything here is computed from what never changes
again: the successful payments of a closed window.
"""
