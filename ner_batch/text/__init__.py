"""Text and spans: windows, boundaries, folding, alignment."""
