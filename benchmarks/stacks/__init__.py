"""What freezing costs and saves in several processes, in compiled models and in trainers."""
