"""What was decided: the controller, the ledger, and what a checkpoint keeps of both. No torch."""
