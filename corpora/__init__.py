"""From text to tokens on disk, and to rows of them: corpora, encoding, packing."""
