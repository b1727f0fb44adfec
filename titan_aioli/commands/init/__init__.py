"""`titan-aioli init`."""
