"""Paying by face: gallery (1:N), liveness, capture, extraction, decision, the face service.

Knows nothing of the gateway, of tokens or of clients. The gateway uses it through `interface`, in this process
or over gRPC (`server`). Liveness is a simulation, uncertified.
"""
