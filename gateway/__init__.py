"""The switch: barcodes, engine, journal, routing, links, server.

May import `contract`, the generated `hutong.*`, and the interfaces of `tokenization` and `facepay`.
"""
