"""Sizing of language models: exact where an exact answer exists."""
