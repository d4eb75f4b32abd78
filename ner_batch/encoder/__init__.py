"""Unsupervised SimCSE (Gao et al., 2021) on raw text: an encoder for the `sentence` index and for training."""
