"""What commands print: tables, facts and JSON, the progress of long work, and how a failed check ends."""
