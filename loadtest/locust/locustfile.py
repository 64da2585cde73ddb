"""Loads a gateway with Locust, with its web page or headless, in one process or many:

locust -f loadtest/locust/locustfile.py --host 127.0.0.1:50050 TokenUser
locust -f loadtest/locust/locustfile.py --host 127.0.0.1:50050 --headless -u 4 -t 30s --rate 2000 MixUser
locust -f loadtest/locust/locustfile.py,loadtest/locust/shapes/step.py --headless --processes 2 MixUser

Users are in `users.py`, options in `options.py`, shapes of load in `shapes/`.
"""

from loadtest.locust import options, users

__all__ = [
    "BarcodeUser",
    "CodeUser",
    "HoldUser",
    "HotUser",
    "MixUser",
    "PollUser",
    "RefundUser",
    "RepeatUser",
    "ScanUser",
    "TokenUser",
    "options",
]

# Locust looks for classes among this module's own names.
BarcodeUser = users.BarcodeUser
CodeUser = users.CodeUser
HoldUser = users.HoldUser
HotUser = users.HotUser
MixUser = users.MixUser
PollUser = users.PollUser
RefundUser = users.RefundUser
RepeatUser = users.RepeatUser
ScanUser = users.ScanUser
TokenUser = users.TokenUser
