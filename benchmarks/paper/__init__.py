"""Does freezing pay? The paper's comparisons, scaled down to two cores and at full scale."""
