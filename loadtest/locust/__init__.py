"""Locust users and load shapes for a gateway. Start with `locustfile.py`; docs/load.md is the guide."""
