"""The logger `tracking=none`, which does nothing: the run folder alone has the records."""
