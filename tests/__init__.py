"""Tests: tables of inputs and expected values with their source, properties, and the documentation run."""
