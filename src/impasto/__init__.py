"""impasto paints a photograph in the manner of a painting, by optimisation."""
