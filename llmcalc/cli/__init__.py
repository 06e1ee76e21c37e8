"""The command line: one module per command, thin. Resolve what was named, call an engine, hand over a document."""
