"""The commands of `titan-aioli`, one file or folder each; cli.py lists them."""
