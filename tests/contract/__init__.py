"""What a batch size schedule promises, as checks that any library can be held to."""
