"""Implicit graduated optimization: SGD's own noise smooths the loss; schedule the noise."""
