"""The pruning loop: score, rank, mask, round after round."""
