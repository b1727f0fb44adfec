"""`titan-aioli sweep`."""
