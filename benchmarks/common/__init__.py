"""What all benchmarks share: ratios of noisy times, the machine, the command line."""
