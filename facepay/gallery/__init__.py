"""The gallery: everybody enrolled, searched 1:N exactly.

`kernels` is compiled code, `sketch` the arithmetic behind it, `segment` and `tail` hold rows on disk and in memory,
`gallery` joins them, `batching` serves many callers at once. Other engines stand behind the same interface
(`engine.Engine`): `floats`, `int8`, `milvus`, `gpu`.
"""
