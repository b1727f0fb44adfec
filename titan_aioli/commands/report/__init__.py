"""`titan-aioli report`."""
