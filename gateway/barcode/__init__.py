"""Payment barcodes: read everything, write it right, say where it leads.

`decode` takes whatever a camera saw and returns a `Decoded`: what it is, whether it is right by EMVCo's standard and by
its scheme's own practice, and the routing key. Everything but the symbols (`symbols`, `read`) is pure. Schemes are data
files in `schemes/`.

May import `contract`, the generated `hutong.*` and libraries; the gateway's other parts import the names below.
"""

from gateway.barcode.decode import decode, forget
from gateway.barcode.model import Candidate, Credential, Decoded, Routing, Verdict, Violation

__all__ = ["Candidate", "Credential", "Decoded", "Routing", "Verdict", "Violation", "decode", "forget"]
