"""What tests, scripts and authors of methods or hosts share."""
