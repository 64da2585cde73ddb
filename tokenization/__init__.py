"""The token service provider: vault, token lifecycle and domains, one-time codes, keys.

Knows nothing of the gateway, of faces or of clients. The gateway uses it through `interface`, in this
process or over gRPC (`server`).
"""
