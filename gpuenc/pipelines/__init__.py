"""What training and preprocessing need: frames of whole archives at random, and what goes back into files."""
