"""``python -m llmcalc``."""

from llmcalc.cli.main import main

main()
