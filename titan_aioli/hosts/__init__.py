"""The programs that own a training loop, one folder each; no other folder imports them."""
