"""Real steps on a GPU, measured, to hold beside what llmcalc says. Nothing in the package depends on it."""
