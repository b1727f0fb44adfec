"""From text to token stores: sources, documents, splits, shards, and the merge into stores."""
