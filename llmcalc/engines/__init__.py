"""Pure functions from blueprints to results: no I/O, no typer, rich or pydantic."""
