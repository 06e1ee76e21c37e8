"""``python -m llmcalc``."""

from llmcalc.cli.main import run

run()
