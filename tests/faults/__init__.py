"""A fault campaign: jobs killed at random, gone on with, and compared with one that nobody disturbed."""
