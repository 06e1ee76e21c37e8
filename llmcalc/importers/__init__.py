"""Other people's files -> specs: the only place that knows their formats."""
