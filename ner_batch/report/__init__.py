"""The report job: one HTML page of an extraction's output, to be looked at in a browser without a network."""
