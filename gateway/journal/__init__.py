"""Durable state: the schema, SQLite, PostgreSQL."""
