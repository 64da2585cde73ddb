"""A wallet: shows a one-time code that a terminal scans, or pays the code of a merchant that it scanned itself.

    python wallet.py --issuer issuer-a --account 6217000130000009 show
    python wallet.py --issuer issuer-a --account 6217000130000009 show --offline --wait 60
    python wallet.py --issuer issuer-a --account 6217000130000009 pay 'TEXT OF A MERCHANT CODE' --amount 1250

Needs `hutong-client` alone, and a network such as that of `hutong up --accounts`. Exits with 1 where nothing was paid.
"""

from __future__ import annotations

import argparse
import sys
import time

from hutong.gateway.v1 import payment_pb2
from hutong_client import (
    FINAL_STATES,
    WALLET_TRID,
    CallError,
    HutongClient,
    HutongError,
    PaymentFilter,
    Secret,
    keys,
    money,
    state_name,
)
from hutong_contract import payment_code

DEVICE = "device-0001"
"""Names the phone; offline codes of another phone of the same account are other codes."""


def online_code(client: HutongClient, token: Secret[str]) -> str:
    """A code that the token service reserves: good for one payment, for a minute."""
    return client.reserve_code(token).reveal()


def offline_code(client: HutongClient, token: Secret[str]) -> str:
    """A code that the phone computes. `provisioned` is fetched once a day, while there is a network; after that no call
    is needed, and a new code follows every 30 seconds."""
    now_us = time.time_ns() // 1_000
    provisioned = client.provision_codes(token, DEVICE, day=payment_code.day_of(now_us))
    return payment_code.offline_code(provisioned.alias, provisioned.day_key, now_us, provisioned.suite)


def show(client: HutongClient, token: Secret[str], *, offline: bool, wait_s: float) -> bool:
    """Shows a code and, with `wait_s`, what became of the payment that it was used for. Whether it was paid, or nobody
    was waited for. Raises DeadlineExceeded where nobody charged it in time."""
    # What is committed from here on cannot be missed, however fast the terminal is.
    since = client.newest_sequence()
    print(offline_code(client, token) if offline else online_code(client, token), flush=True)
    if not wait_s:
        return True
    ours = PaymentFilter(
        token_ref=client.get_token(token).view.token_ref,
        kind=payment_pb2.PAYMENT_KIND_PAYMENT,
        states=list(FINAL_STATES),
    )
    event = next(client.watch_payments(after_sequence=since, only=ours, deadline_s=wait_s))
    print(event.payment_id, state_name(event.state), money(event.amount_minor, event.currency), "to", event.merchant_id)
    return event.state == payment_pb2.PAYMENT_STATE_SUCCEEDED


def pay(client: HutongClient, token: Secret[str], text: str, amount_minor: int, currency: str) -> payment_pb2.Payment:
    """Pays what the merchant's code says, or `amount_minor` where it says no amount. The answer is final: where the
    fate of a leg is unknown at first, `settled` waits for it."""
    payment = client.create_payment(
        payer=keys.token(token.reveal(), WALLET_TRID),
        payee=keys.barcode(text),
        amount_minor=amount_minor,
        currency=currency if amount_minor else "",
    )
    return client.settled(payment)


def main() -> int:
    """Reads the arguments; returns the exit status."""
    parser = argparse.ArgumentParser(description="A wallet of one account.")
    parser.add_argument("--target", default="127.0.0.1:50050", help="the gateway, HOST:PORT or unix:/PATH")
    parser.add_argument("--issuer", required=True, help="who keeps the account, such as issuer-a")
    parser.add_argument("--account", required=True, help="the account's number at the issuer")
    commands = parser.add_subparsers(dest="command", required=True)
    display = commands.add_parser("show", help="show a one-time code")
    display.add_argument("--offline", action="store_true", help="one that the phone computes")
    display.add_argument("--wait", type=float, default=0.0, help="seconds to wait until it is paid; default: do not")
    scan = commands.add_parser("pay", help="pay a merchant's code")
    scan.add_argument("text", help="what the camera read")
    scan.add_argument("--amount", type=int, default=0, help="minor units (1250 is 12.50), where the code says none")
    scan.add_argument("--currency", default="CNY")
    asked = parser.parse_args()
    try:
        with HutongClient(asked.target) as client:
            # The same account always gets the same token, so that asking again is harmless.
            token = client.request_token(asked.issuer, asked.account)
            if asked.command == "show":
                return 0 if show(client, token, offline=asked.offline, wait_s=asked.wait) else 1
            payment = pay(client, token, asked.text, asked.amount, asked.currency)
    except (HutongError, CallError) as error:
        print(error, file=sys.stderr)
        return 1
    print(payment.payment_id, state_name(payment.state), money(payment.amount_minor, payment.currency))
    return 0 if payment.state == payment_pb2.PAYMENT_STATE_SUCCEEDED else 1


if __name__ == "__main__":
    sys.exit(main())
