"""What servers and clients share besides the generated messages: formats, limits, errors on the wire, masked secrets.

Imports only `hutong.*` (generated) and libraries; everything may import it.
"""
