"""A terminal: charges the code that a wallet shows, prints the receipt, refunds.

    python terminal.py --merchant m1001 --terminal m1001t1 charge CODE 1250 --order order-17
    python terminal.py refund PAYMENT_ID --amount 500
    python terminal.py receipt PAYMENT_ID

Needs `hutong-client` alone, and a network such as that of `hutong up --accounts`. Exits with 1 where nothing was paid.
"""

from __future__ import annotations

import argparse
import sys

from hutong.gateway.v1 import payment_pb2
from hutong_client import CallError, HutongClient, HutongError, keys, render_receipt


def charge(client: HutongClient, asked: argparse.Namespace) -> payment_pb2.Payment:
    """Charges a wallet's code.

    The order number is the idempotency key: where the connection breaks, or the till itself is restarted, the same
    order is sent again, and it is paid once. `keys.barcode` takes whatever a scanner reads, `keys.payment_code` only
    digits.
    """
    payment = client.create_payment(
        payer=keys.barcode(asked.code),
        payee=keys.merchant(asked.merchant, asked.terminal),
        amount_minor=asked.amount,
        currency=asked.currency,
        reference=asked.order,
        idempotency_key=asked.order,
    )
    return client.settled(payment)


def refund(client: HutongClient, asked: argparse.Namespace) -> payment_pb2.Payment:
    """Gives back a part of a payment, or all that is left of it."""
    return client.settled(client.refund_payment(asked.payment, amount_minor=asked.amount))


def main() -> int:
    """Reads the arguments; returns the exit status."""
    parser = argparse.ArgumentParser(description="A terminal of one merchant.")
    parser.add_argument("--target", default="127.0.0.1:50050", help="the gateway, HOST:PORT or unix:/PATH")
    parser.add_argument("--merchant", default="m1001", help="the merchant's id in the gateway's directory")
    parser.add_argument("--terminal", default="", help="the terminal's id")
    commands = parser.add_subparsers(dest="command", required=True)
    sale = commands.add_parser("charge", help="charge a wallet's code")
    sale.add_argument("code", help="what the scanner read")
    sale.add_argument("amount", type=int, help="minor units: 1250 is 12.50")
    sale.add_argument("--currency", default="CNY")
    sale.add_argument("--order", default="", help="the order's number; the same number is paid once")
    back = commands.add_parser("refund", help="give back a payment, or a part of it")
    back.add_argument("payment", help="the payment's id")
    back.add_argument("--amount", type=int, default=0, help="minor units; default: all that is left")
    commands.add_parser("receipt", help="print a receipt").add_argument("payment", help="the payment's id")
    asked = parser.parse_args()
    try:
        with HutongClient(asked.target) as client:
            if asked.command == "receipt":
                print(render_receipt(client.get_receipt(asked.payment)), end="")
                return 0
            payment = charge(client, asked) if asked.command == "charge" else refund(client, asked)
            print(payment.payment_id)
            print(render_receipt(client.get_receipt(payment.payment_id)), end="")
    except (HutongError, CallError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if payment.state == payment_pb2.PAYMENT_STATE_SUCCEEDED else 1


if __name__ == "__main__":
    sys.exit(main())
