"""Answers of transformers and torch, read off models without data; nothing here is needed to run llmcalc."""
