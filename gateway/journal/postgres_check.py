"""The conservation check on PostgreSQL: the common questions, and those of a shared journal."""

from __future__ import annotations

from gateway.journal.conservation import examine_database
from gateway.journal.postgres_connection import CHECK_MS, connect
from gateway.journal.postgres_setup import check_version
from gateway.journal.report import Report

UNOWNED = (
    "SELECT payment_id FROM payments WHERE open = 1 AND NOT EXISTS "
    "(SELECT 1 FROM leases WHERE leases.engine = payments.engine)"
)
UNNUMBERED = (
    "SELECT count(*) FROM numbering WHERE last < (SELECT COALESCE(max(posting), 0) FROM postings) "
    "OR last < (SELECT COALESCE(max(sequence), 0) FROM events)"
)


def examine_postgresql(url: str) -> Report:
    """Checks a journal on a database server against itself, in one snapshot. Raises psycopg.Error,
    JournalMismatchError."""
    connection = connect(url)
    try:
        connection.execute(f"SET statement_timeout = {CHECK_MS}")
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        check_version(connection)
        report = examine_database(connection)
        unowned = connection.execute(UNOWNED).fetchall()
        if unowned:
            report.find(
                f"{len(unowned)} payments are in flight at an engine that does not exist: {unowned[0][0].hex()}"
                f"{' ...' if len(unowned) > 1 else ''}"
            )
        ((behind,),) = connection.execute(UNNUMBERED)
        if behind:
            report.find("postings or events have numbers above the last number that was assigned")
        connection.execute("COMMIT")
        return report
    finally:
        connection.close()
