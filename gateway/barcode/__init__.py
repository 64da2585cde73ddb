"""Payment barcodes: reads them all, writes them correctly, and resolves where they lead.

`decode` takes whatever a camera read and returns a `Decoded`: what it is, whether it is valid by EMVCo's standard and
by its scheme's own practice, and the routing key. Schemes are data files in `schemes/`. Everything is pure except
`symbols` and `read` (pictures; they import OpenCV, so they are not imported here) and `server`.

May import `contract`, the generated `hutong.*` and libraries; the gateway's other parts import the names below.
"""

from gateway.barcode.build import ConsumerCode, MerchantCode, build_consumer_code, build_merchant_code
from gateway.barcode.decode import ASKED_FOR, EXPIRED, decode, forget
from gateway.barcode.model import PAYABLE, PURPOSES, Candidate, Credential, Decoded, Routing, Verdict, Violation
from gateway.barcode.routing import Route, best_route, resolve
from gateway.barcode.translate import Loss, Translation, translate

__all__ = [
    "ASKED_FOR",
    "EXPIRED",
    "PAYABLE",
    "PURPOSES",
    "Candidate",
    "ConsumerCode",
    "Credential",
    "Decoded",
    "Loss",
    "MerchantCode",
    "Route",
    "Routing",
    "Translation",
    "Verdict",
    "Violation",
    "best_route",
    "build_consumer_code",
    "build_merchant_code",
    "decode",
    "forget",
    "resolve",
    "translate",
]
