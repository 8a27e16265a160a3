"""Other people's question files, checked and kept as TFDS datasets."""
