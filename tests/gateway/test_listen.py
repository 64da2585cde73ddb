"""Plaintext stays on this machine unless that is said otherwise; addresses are parsed or refused with advice."""

import pytest

from gateway.listen import ListenError, check, parse


@pytest.mark.parametrize(
    ("text", "target", "stays"),
    [
        ("127.0.0.1:50050", "127.0.0.1:50050", True),
        ("localhost:1", "localhost:1", True),
        ("[::1]:50050", "[::1]:50050", True),
        ("127.9.9.9:0", "127.9.9.9:0", True),
        ("unix:/run/h.sock", "unix:/run/h.sock", True),
        ("0.0.0.0:50050", "0.0.0.0:50050", False),
        ("[::]:50050", "[::]:50050", False),
        ("10.0.0.1:1", "10.0.0.1:1", False),
        ("example.org:443", "example.org:443", False),
    ],
)
def test_plaintext_is_refused_where_others_could_read_it(text: str, target: str, stays: bool) -> None:
    address = parse(text)
    assert (address.target, address.stays_here) == (target, stays)
    check(address, secured=True, plaintext_allowed=False)
    check(address, secured=False, plaintext_allowed=True)
    if stays:
        check(address, secured=False, plaintext_allowed=False)
    else:
        with pytest.raises(ListenError, match="plaintext-anywhere"):
            check(address, secured=False, plaintext_allowed=False)


@pytest.mark.parametrize("text", ["", "50050", "host", "host:", "host:port", "host:70000", "unix:"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ListenError):
        parse(text)
