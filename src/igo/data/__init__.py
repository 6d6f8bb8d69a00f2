"""Images: read from files, cached, augmented, and handed out as normalised batches on a device.

Imports config and what is below it.
"""
