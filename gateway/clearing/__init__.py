"""Clearing and settlement: who owes whom after each window, the files that say so, and holding them against books.

Imports the engine's words and the journal's readers; the engine and the journal know nothing of it. A window itself is
made by the journal (`gateway.journal.closing`), in a tick of the engine. All else here is computed from what never
changes again: the successes that lie in a closed window, and their payments.
"""
