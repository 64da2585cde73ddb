"""Simulated people's faces, and cameras that see them: the outside world of the face service.

`people` makes embeddings with calibrated scores, `camera` frames and depth maps of live faces and of attacks,
`capturing` what a terminal does with them over gRPC. Imports only the contract. Nobody here is real.
"""
