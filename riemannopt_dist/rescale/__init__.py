"""DeepLIFT's Rescale rule between samples of a path: mean slopes in place of derivatives, by custom VJPs."""
