"""Rules of thumb about language models, each computed: docs/claims.md.

python -m tests.claims        writes docs/claims.md anew

``tests/data/claims.yaml`` has the rules, and beside many of them the figure (``truth``) and the ``verdict`` that are expected. A
module per subject has a function for each rule, which asks the engines or the command line and judges; ``page`` sets the table.
"""
