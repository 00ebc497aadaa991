"""`selfemo playground`: a page on this machine on which a model is tried."""
