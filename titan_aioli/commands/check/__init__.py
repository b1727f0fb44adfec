"""`titan-aioli check`."""
