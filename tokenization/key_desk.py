"""Requests about routing keys: adding them, codes, transit credentials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from hutong_contract import transit
from hutong_contract.errors import HutongError, Reason
from hutong_contract.payment_code import day_of
from hutong_contract.secret import Secret
from tokenization.codes import Provisioning, Reservation
from tokenization.desk import TEXT_MAX, Desk, TokenName
from tokenization.domain import Domain, check_assurance
from tokenization.key_kinds import KeyKind
from tokenization.records import KeyRow
from tokenization.requestors import Action
from tokenization.routing_keys import KeyRequest, NewKey
from tokenization.views import KeyView, key_view
from tokenization.writing import Change

TRANSIT_LIFETIME_US: Final = 7 * 86_400_000_000


class KeyDesk(Desk):
    """Routing keys of tokens."""

    def add_key(
        self,
        name: TokenName,
        kind: KeyKind,
        domain: Domain | None = None,
        *,
        device_id: str = "",
        assurance_method: str = "00",
        expires_us: int | None = None,
        reference: Secret[str] | None = None,
        by: str = "",
    ) -> NewKey:
        """Adds a routing key. Its number and device key are in the answer and nowhere else."""
        slot = self._locate(name, by, Action.CREATE_KEY)
        self._check_terms(domain, None, expires_us)
        method = check_assurance(assurance_method)
        request = KeyRequest(kind, domain, device_id, method, expires_us, reference)
        change = self._change(by, "")
        return self._vault.write(lambda session: self._keys.add(session, slot + 1, request, change))

    def bind_face(self, name: TokenName, reference: Secret[str], domain: Domain | None = None) -> NewKey:
        """Lets a face lead to a token: `reference` is what the face service gave."""
        return self.add_key(name, KeyKind.FACE, domain, reference=reference)

    def view_of_key(self, row: KeyRow) -> KeyView:
        """The view of a key that was just made."""
        return key_view(row, self._vault.index.policies[row.policy], self._clock_us())

    def reserve_code(self, name: TokenName, *, by: str = "") -> Reservation:
        """An online payment code, good for a minute and one payment."""
        slot = self._locate(name, by, Action.RESERVE_CODE)
        change = self._change(by, "")
        return self._vault.write(lambda session: self._issuer.reserve(session, slot + 1, change))

    def provision(self, name: TokenName, device_id: str, day: int | None = None, *, by: str = "") -> Provisioning:
        """Alias and day key for a day's offline codes (days since 1970-01-01 UTC; None: today)."""
        return self.provision_many([name], device_id, day, by=by)[0]

    def provision_many(
        self, names: Sequence[TokenName], device_id: str, day: int | None = None, *, by: str = ""
    ) -> list[Provisioning]:
        """`provision` for several tokens in one transaction."""
        if not 0 < len(device_id) <= TEXT_MAX:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="device_id")
        slots = [self._locate(name, by, Action.PROVISION) for name in names]
        change = self._change(by, "")
        wanted = day_of(change.now_us) if day is None else day
        return self._vault.write(
            lambda session: [self._issuer.provision(session, slot + 1, device_id, wanted, change) for slot in slots]
        )

    def issue_transit(
        self,
        name: TokenName,
        public_key: bytes,
        fare_max_minor: int,
        currency: str,
        *,
        expires_us: int | None = None,
        by: str = "",
    ) -> tuple[NewKey, bytes]:
        """A transit credential and its signed certificate for a rider's public key (P-256, 33 bytes)."""
        slot = self._locate(name, by, Action.ISSUE_TRANSIT)
        now_us = self._clock_us()
        until_us = expires_us or now_us + TRANSIT_LIFETIME_US
        domain = Domain(currency=currency, amount_max_minor=fare_max_minor)
        self._check_terms(domain, None, until_us)
        if not now_us < until_us < 2**32 * 1_000_000:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="expire_time")
        _check_point(public_key)
        if not 0 < fare_max_minor < 2**32 or not currency:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="fare_max_minor")
        purposes = self._vault.purposes
        request = KeyRequest(KeyKind.TRANSIT, domain, expires_us=until_us + transit.WINDOW_US)
        change = Change(by, now_us)
        made = self._vault.write(lambda session: self._keys.add(session, slot + 1, request, change))
        # Phones whose clocks are behind may use it at once.
        begins_s = (now_us - transit.WINDOW_US) // 1_000_000
        certificate = transit.Certificate(
            purposes.transit_key_id, made.row.ref, public_key, begins_s, until_us // 1_000_000,
            fare_max_minor, currency,
        )  # fmt: skip
        return made, transit.sign_certificate(certificate, purposes.transit)

    @property
    def transit_public_key(self) -> ec.EllipticCurvePublicKey:
        """The public key with which gates verify transit certificates."""
        return self._vault.purposes.transit_public


def _check_point(public_key: bytes) -> None:
    try:
        if len(public_key) != transit.PUBLIC_KEY_BYTES:
            raise ValueError
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
    except ValueError:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="public_key") from None
