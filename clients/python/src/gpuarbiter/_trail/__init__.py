"""The audit trail in the forms that other programs read."""
