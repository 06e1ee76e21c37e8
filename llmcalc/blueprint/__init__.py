"""Specs lowered to weights, cache entries and operations: the one thing that engines read."""
