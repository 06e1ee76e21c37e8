"""Spec files: what they may say, how they are read and checked, and the catalogue that ships with llmcalc."""
