"""What every part and every client shares beside the generated messages: errors on the wire, masked secrets.

Imports only `hutong.*` (generated) and libraries; everybody may import it.
"""
