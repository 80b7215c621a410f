"""What freezing costs and saves in one training step."""
