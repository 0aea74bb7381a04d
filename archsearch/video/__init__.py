"""Files to clips: data set layouts, decoding, packing once, sampling many times. Needs no torch."""
