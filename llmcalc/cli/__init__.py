"""The command line: one module per command, thin. Resolve what was named, call an engine, hand over a document."""

import gc

# While modules load a collection finds nothing and costs a tenth of the start-up; ``main`` turns them on again.
gc.disable()
