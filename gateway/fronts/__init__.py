"""Fronts: gRPC in. Both hand the same calls to the same engine; they differ in transport and speed only."""
