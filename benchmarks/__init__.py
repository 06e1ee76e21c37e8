"""Speed and size of llmcalc, and what is fitted on measurements. Never part of the tests."""
