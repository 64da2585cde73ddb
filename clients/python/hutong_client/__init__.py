"""The client of a Hutong payment gateway, for wallets, terminals and services.

    from hutong_client import HutongClient, keys

    with HutongClient("127.0.0.1:50050") as client:
        payment = client.create_payment(
            payer=keys.payment_code(digits), payee=keys.merchant("m1001"), amount_minor=1250, currency="CNY"
        )

`AsyncHutongClient` has the same methods for asyncio. Every method raises `HutongError` for a refusal, `Unreachable` or
`DeadlineExceeded` where there is no answer, and `CallError` for anything else.

For operators there are `hutong_client.risk` and `hutong_client.settlement`. Messages are those of `hutong.*`; formats
that both ends compute, such as offline codes and sealed face captures, are in `hutong_contract`.
"""

from hutong.gateway.v1.payment_pb2 import PaymentFilter
from hutong_client import keys
from hutong_client.aio import AsyncHutongClient
from hutong_client.calls import BATCH_MAX, FINAL_STATES, SETTLED_STATES, new_idempotency_key
from hutong_client.client import HutongClient
from hutong_client.errors import CallError, DeadlineExceeded, Unreachable
from hutong_client.optics import CODE_128, QR, NoOpticsError, Optics
from hutong_client.options import ClientOptions, RetryOptions, TlsOptions
from hutong_client.receipt import render as render_receipt
from hutong_client.terminal import CodePrinter, EmulatedTerminal, Till
from hutong_client.wallet import EmulatedWallet, Holder, NotActivatedError
from hutong_client.wire import open_channel
from hutong_client.wording import as_json, key_name, money, state_name
from hutong_contract.errors import HutongError, Reason
from hutong_contract.names import WALLET_TRID
from hutong_contract.secret import Secret

__all__ = [
    "BATCH_MAX",
    "CODE_128",
    "FINAL_STATES",
    "QR",
    "SETTLED_STATES",
    "WALLET_TRID",
    "AsyncHutongClient",
    "CallError",
    "ClientOptions",
    "CodePrinter",
    "DeadlineExceeded",
    "EmulatedTerminal",
    "EmulatedWallet",
    "Holder",
    "HutongClient",
    "HutongError",
    "NoOpticsError",
    "NotActivatedError",
    "Optics",
    "PaymentFilter",
    "Reason",
    "RetryOptions",
    "Secret",
    "Till",
    "TlsOptions",
    "Unreachable",
    "as_json",
    "key_name",
    "keys",
    "money",
    "new_idempotency_key",
    "open_channel",
    "render_receipt",
    "state_name",
]
