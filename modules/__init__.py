"""The parts of a model: one file per family of flags, closed by its menu.

Axes have one letter each, in einops patterns, shape comments and traces:

    b batch            t time (queries)    s source (keys)     d residual stream
    h query heads      g key/value heads   p head width        f MLP width
    n residual streams e experts           v vocabulary        l layers
      or a state       i width of a recurrent mixer, whose keys are n and values p wide
    c pointer width    k experts of a token  r latent vector (mixer=latent)
    j heads of an indexer
    m vectors of the n-grams of a token (memory=engram)           u vectors of tokens (noised)
"""
