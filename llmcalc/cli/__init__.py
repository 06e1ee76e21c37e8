"""The command line: one module per command, thin. Resolve what was named, call an engine, hand over a document."""

import gc

# A collection finds nothing while modules load and costs a tenth of the start-up; ``main`` turns it on again at the end.
gc.disable()
