"""What waits for a deferred task, in the triggerer."""
