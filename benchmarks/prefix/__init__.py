"""What the captured prefix costs and saves."""
