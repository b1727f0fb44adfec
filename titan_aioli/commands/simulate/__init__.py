"""`titan-aioli simulate`."""
