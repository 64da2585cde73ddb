"""Links: legs out to issuers and acquirers, answers back. In this process (loopback), or a gRPC stream each."""
