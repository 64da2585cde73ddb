"""A small performance probe: pays as fast as a few callers can, and prints payments a second and how long they took.

    python probe.py --issuer issuer-a --account 6217000130000009 --merchant m1001 --seconds 5 --callers 16

Each caller sends its next payment when the last one was answered, so the times show what a client of this kind sees and
not what the gateway could do: a closed loop slows down with the system under it. For open load, where each call has its
time, use `hutong bench`. Needs `hutong-client` alone. Exits with 1 where a payment did not succeed.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter

from hutong_client import WALLET_TRID, CallError, HutongClient, HutongError, keys, state_name

AMOUNT_MINOR = 1


class Probe:
    """Counts what callers saw."""

    def __init__(self, client: HutongClient, token: str, merchant: str) -> None:
        self._client = client
        self._payer = keys.token(token, WALLET_TRID)
        self._payee = keys.merchant(merchant)
        self._lock = threading.Lock()
        self.ends: Counter[str] = Counter()
        """State or error to the number of payments that ended so."""
        self.took_s: list[float] = []

    def call_until(self, end: float) -> None:
        """One caller, until `time.monotonic()` is at `end`."""
        while (began := time.monotonic()) < end:
            try:
                payment = self._client.create_payment(
                    payer=self._payer, payee=self._payee, amount_minor=AMOUNT_MINOR, currency="CNY"
                )
                how = state_name(self._client.settled(payment).state)
            except (HutongError, CallError) as error:
                how = error.name if isinstance(error, HutongError) else error.code.name
            with self._lock:
                self.took_s.append(time.monotonic() - began)
                self.ends[how] += 1


def percentile(ordered: list[float], share: float) -> float:
    """The value that `share` (0 to 1) of the sorted values do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> int:
    """Reads the arguments; returns the exit status."""
    parser = argparse.ArgumentParser(description="Pays as fast as a few callers can.")
    parser.add_argument("--target", default="127.0.0.1:50050", help="the gateway, HOST:PORT or unix:/PATH")
    parser.add_argument("--issuer", required=True, help="who keeps the payer's account")
    parser.add_argument("--account", required=True, help="the payer's account at the issuer")
    parser.add_argument("--merchant", default="m1001")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--callers", type=int, default=16)
    asked = parser.parse_args()
    if not (0 < asked.seconds <= 3600 and 0 < asked.callers <= 1000):
        parser.error("--seconds: up to 3600; --callers: 1 to 1000")
    with HutongClient(asked.target) as client:
        try:
            token = client.request_token(asked.issuer, asked.account).reveal()
        except (HutongError, CallError) as error:
            print(error, file=sys.stderr)
            return 1
        probe = Probe(client, token, asked.merchant)
        began = time.monotonic()
        callers = [
            threading.Thread(target=probe.call_until, args=(began + asked.seconds,)) for _ in range(asked.callers)
        ]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        lasted_s = time.monotonic() - began
    took = sorted(probe.took_s)
    print(f"{len(took)} payments in {lasted_s:.1f} s: {len(took) / lasted_s:.0f} a second, {asked.callers} callers")
    print("  ".join(f"p{share * 100:g} {percentile(took, share) * 1e3:.1f} ms" for share in (0.5, 0.95, 0.99)))
    print(", ".join(f"{how} {count}" for how, count in probe.ends.most_common()))
    return 0 if probe.ends.keys() == {"SUCCEEDED"} else 1


if __name__ == "__main__":
    sys.exit(main())
